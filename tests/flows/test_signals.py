"""A signal stops a process wherever it comes upon it."""

import subprocess
import sys
from pathlib import Path

import pytest

STOPPED_IN_A_BAD_MOMENT = """
import signal, threading
from flows.signals import stop_on_signals
stopping = threading.Event()
stop_on_signals(stopping)
with stopping._cond:  # as wait() and set() hold it for a moment
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
assert stopping.wait(10)
"""


@pytest.mark.process
def test_a_signal_may_interrupt_the_wait_for_its_flag_and_another_signal():
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", STOPPED_IN_A_BAD_MOMENT], cwd=root, check=True, timeout=30)
