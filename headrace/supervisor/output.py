"""What `headrace up` prints: text at a terminal, else JSON lines whose field `process` names who wrote them."""

import threading
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

COLOURS = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}
LOUD = ("warning", "error", "critical")
HIDDEN = ("timestamp", "level", "event", "process")
SUPERVISOR = "up"


class Output:
    """Lines on stderr, of the supervisor and of its children; any thread may write."""

    def __init__(self, console: Console, text: bool, everything: bool) -> None:
        """`text`: for a person, who sees of the children only warnings and errors, unless `everything`."""
        self._console, self._text, self._everything = console, text, everything
        self._lock = threading.Lock()

    @property
    def is_text(self) -> bool:
        """Whether a person looks on."""
        return self._text

    def tell(self, event: str, **fields: Any) -> None:
        """Print an event of the supervisor."""
        self._write({"level": "info", "event": event, **fields}, SUPERVISOR)

    def warn(self, event: str, **fields: Any) -> None:
        """Print a warning of the supervisor."""
        self._write({"level": "warning", "event": event, **fields}, SUPERVISOR)

    def show(self, text: str, event: str, **fields: Any) -> None:
        """Print a text, with rich's markup, for a person, or an event with its fields for a machine."""
        if self._text:
            with self._lock:
                self._console.print(text, highlight=False, soft_wrap=True)
        else:
            self.tell(event, **fields)

    def relay(self, process: str, line: str) -> None:
        """Print a line of a child: an event where it is JSON, else the line as it is (a traceback, say)."""
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            found = {"level": "error", "event": line} if line else {}
        if found and (not self._text or self._everything or found.get("level") in LOUD):
            self._write(found, process)

    def _write(self, event: dict[str, Any], process: str) -> None:
        if self._text:
            with self._lock:
                self._console.print(_as_text(event, process), soft_wrap=True)
            return
        stamp = {"timestamp": datetime.now().astimezone().isoformat()} if "timestamp" not in event else {}
        line = orjson.dumps({"process": process, **event, **stamp}, default=str).decode()
        with self._lock:
            self._console.file.write(line + "\n")
            self._console.file.flush()


def _as_text(event: dict[str, Any], process: str) -> Text:
    more = "".join(f"  {name}={value}" for name, value in event.items() if name not in HIDDEN and name != "exception")
    trace = f"\n{event['exception']}" if "exception" in event else ""
    line = Text(f"{datetime.now():%H:%M:%S} ", "dim")
    if process != SUPERVISOR:
        line.append(f"{process}: ", "cyan")
    line.append(str(event.get("event", "")), COLOURS.get(str(event.get("level")), ""))
    return line.append(more + trace, "dim")
