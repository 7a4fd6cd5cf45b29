"""The first start of a version compiles; the processes that do it end, and with them the memory that it takes."""

import os
import subprocess
import sys
import threading
import time

from headrace.supervisor.output import Output
from schemas.compiled.kept import is_compiled

PROGRAMS = ("flow", "serve")
TELL_EVERY_S = 30.0


def compile_once(output: Output, stopping: threading.Event) -> None:
    """Compile what is not kept of earlier starts, the programs side by side; return when it is done, or at a stop."""
    missing = [name for name in PROGRAMS if not is_compiled(name)]
    if not missing:
        return
    kept = os.path.dirname(os.environ.get("NUMBA_CACHE_DIR", ""))
    output.tell("compiling once for this version: about a minute on two free cores", kept_in=kept)
    began = told = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "headrace", name, "--compile-only"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )
        for name in missing
    ]  # fmt: skip
    parts = list(zip(missing, running, strict=True))
    readers = [threading.Thread(target=_relay, args=(name, one, output)) for name, one in parts]
    for reader in readers:
        reader.start()
    while any(one.poll() is None for one in running) and not stopping.wait(0.1):
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            output.tell("still compiling", seconds=round(told - began))
    for one in running:
        if one.poll() is None:
            one.kill()
    for one, reader in zip(running, readers, strict=True):
        one.wait()
        reader.join()


def _relay(name: str, process: subprocess.Popen[str], output: Output) -> None:
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            output.relay(name, line.rstrip())
