"""The code blocks of the docs: what each is, how it is run, and whether it printed what the page says it prints."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
VARYING = ("request_id", "attribution", "next_cursor", "milliseconds", "score", "event_ids")
"""Fields of JSON that differ from run to run."""
VARYING_TEXT = re.compile(r"\b(?:a\d{8}-\d{6}|hr_[\w-]{20,}|[0-9a-f]{32})\b")
"""Texts that differ from run to run: versions of anchors, API keys, request and event ids."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the sentence before it, and the output printed after it."""

    page: str
    line: int
    language: str
    text: str
    before: str
    printed: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return a page's blocks in order; a `json` or `text` block right behind a shell block is that one's output."""
    text = page.read_text()
    found, end = [], 0
    for match in BLOCK.finditer(text):
        language, body = match.groups()
        before = text[end : match.start()].strip()
        if language in ("json", "text") and not before and found and found[-1].language == "sh":
            found[-1] = Block(**{**vars(found[-1]), "printed": body})
        else:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(page.relative_to(ROOT)), line, language, body, before, None))
        end = match.end()
    return found


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def steady(text: str) -> object:
    """Return an output without what differs from run to run."""
    if text[:1] in "{[" and is_json(text):
        return json.loads(text, object_hook=lambda found: {k: v for k, v in found.items() if k not in VARYING})
    return VARYING_TEXT.sub("VARYING", text)


def agrees(found: str, printed: str) -> bool:
    """Return whether an output is what a page prints; `…` in the page stands for any text."""
    found, printed = found.strip(), printed.strip()
    if "…" in printed:
        pattern = ".*?".join(re.escape(part) for part in VARYING_TEXT.sub("VARYING", printed).split("…"))
        return re.fullmatch(pattern, VARYING_TEXT.sub("VARYING", found), re.S) is not None
    return steady(found) == steady(printed)


class Shell:
    """One bash in which a page's blocks run one after the other, as in a user's terminal."""

    def __init__(self, folder: Path, environment: dict[str, str], seconds: int = 120):
        self.folder, self.environment, self.seconds = folder, environment, seconds

    def run_all(self, scripts: list[str]) -> list[tuple[int, str]]:
        """Return exit status and output of each script; those after the first that fails are not run."""
        mark = "=====status"
        body = "\n".join(
            f"failed=0\n{script}\necho; echo {mark} $failed; [ $failed = 0 ] || exit 0" for script in scripts
        )
        done = subprocess.run(
            ["bash", "-c", f"trap 'failed=$?' ERR\n{body}"], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=self.seconds, check=False,
        )  # fmt: skip
        parts = re.split(rf"\n{mark} (\d+)\n", done.stdout)
        return [(int(status), output) for output, status in zip(parts[::2], parts[1::2], strict=False)]
