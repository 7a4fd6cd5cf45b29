"""Turns a signal into a flag that the process polls."""

import _thread
import signal
import threading
from types import FrameType


def stop_on_signals(stopping: threading.Event) -> None:
    """Set the flag on SIGTERM and SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:
        # In a thread of its own: what is interrupted, a wait for the flag or another signal, may hold its lock.
        _thread.start_new_thread(stopping.set, ())

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
