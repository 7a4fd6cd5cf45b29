"""Flow and server as processes that are started again when they die.

They are forked from one process that has imported and compiled everything (`headrace.supervisor.preloaded`): a new one
works within a fraction of a second, and all share that memory.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import structlog

from headrace.console import set_up_logging
from headrace.exit_codes import FAILED, WRONG_USAGE
from headrace.settings import load_settings
from headrace.supervisor.output import Output
from state.settings import BadSettings

STOP_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
CALM_S = 30.0
MOST_FAILURES = 5
"""A child that gives up so often in a row, each time within CALM_S, is not started again."""

log = structlog.get_logger()
PROCESSES = multiprocessing.get_context("forkserver")


class CannotRun(Exception):
    """A child cannot do its work, however often it is started; its last lines have the reason."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} cannot run (exit code {code}); the lines above have the reason")
        self.code = code


def _run_flow() -> int:
    from flows.run import run_flow

    return run_flow(load_settings(), "loop")


def _run_server() -> int:
    from serving.app.server import run_server

    return run_server(load_settings())


PROGRAMS: dict[str, Callable[[], int]] = {"flow": _run_flow, "serve": _run_server}


def _end_with_supervisor() -> None:
    """Wait until the supervisor is gone, however it ended, and stop this process as it would have."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _be(name: str, out: Connection) -> None:
    """Be one of PROGRAMS until it ends; all that the process prints goes to `out`."""
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    os.setsid()  # Ctrl-C is the supervisor's
    for number in (1, 2):
        os.dup2(out.fileno(), number)
    out.close()
    try:
        set_up_logging(load_settings())
        sys.exit(PROGRAMS[name]())
    except BadSettings as error:
        log.error(str(error))
        sys.exit(WRONG_USAGE)
    except Exception:  # in one line, as everything else
        log.exception("ended by an error nobody expected")
        sys.exit(FAILED)


class Child:
    """A process that is started again when it dies, after a pause that grows while it keeps dying."""

    def __init__(self, name: str, output: Output) -> None:
        self.name, self._output = name, output
        self._process: BaseProcess | None = None
        self._started = self._due = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._n_failures = 0

    @property
    def pid(self) -> int:
        """Process id of the one at work, 0 for none."""
        return self._process.pid or 0 if self._process else 0

    def start(self) -> None:
        """Fork a process and let it begin its work."""
        lines, out = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=_be, args=(self.name, out), name=self.name)
        process.start()
        self._process, self._started = process, time.monotonic()
        out.close()
        threading.Thread(target=self._relay, args=(lines,), daemon=True).start()

    def watch(self) -> None:
        """Start the process again when it is gone. Raises CannotRun."""
        if self._process is not None and self._process.exitcode is not None:
            code = self._process.exitcode
            calm = time.monotonic() - self._started > CALM_S
            self._pause_s = FIRST_PAUSE_S if calm else self._pause_s
            self._n_failures = 0 if calm or code != FAILED else self._n_failures + 1
            if code == WRONG_USAGE or self._n_failures == MOST_FAILURES:
                raise CannotRun(self.name, code)
            self._output.warn(f"{self.name} ended with {code}; starting it again in {self._pause_s:.1f} s")
            self._process, self._due = None, time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if self._process is None and time.monotonic() >= self._due:
            self.start()

    def stop(self) -> None:
        """End the process by SIGTERM, or after STOP_S by SIGKILL."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(STOP_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()

    def _relay(self, lines: Connection) -> None:
        with contextlib.suppress(OSError), os.fdopen(os.dup(lines.fileno()), errors="replace") as text:
            lines.close()
            for line in text:
                self._output.relay(self.name, line.rstrip())


def start_all(children: Sequence[Child], stopping: threading.Event) -> None:
    """Start the children, from a process that first loads everything, in the environment they are to have.

    Return when they run, or at a stop: what is still loading ends with this process.
    """
    PROCESSES.set_forkserver_preload(["headrace.supervisor.preloaded"])
    starting = threading.Thread(target=_start, args=(children,), daemon=True)
    starting.start()
    while starting.is_alive() and not stopping.is_set():
        starting.join(0.05)


def _start(children: Sequence[Child]) -> None:
    for child in children:
        child.start()
