"""The budget of a trial. A thread cannot be ended from outside, so the work itself counts what it spends."""

from collections.abc import Callable


class TooMuch(Exception):
    """The work would take more than it may."""


class Budget:
    """The time and memory that one piece of work may still take."""

    def __init__(self, seconds: float, n_bytes: int, clock_s: Callable[[], float]) -> None:
        """`clock_s`: a clock that never goes back, in seconds."""
        self._seconds, self._bytes, self._left, self._clock_s = seconds, n_bytes, n_bytes, clock_s
        self._until_s = clock_s() + seconds

    def spend(self, n_bytes: int = 0) -> None:
        """Count memory that is kept until the end. Raises TooMuch where that or the time is more than allowed."""
        self._left -= n_bytes
        if self._left < 0:
            raise TooMuch(f"to try it takes more than {self._bytes >> 20} MiB")
        if self._clock_s() > self._until_s:
            raise TooMuch(f"to try it takes more than {self._seconds:g} s")


UNBOUNDED = Budget(float("inf"), 1 << 62, lambda: 0.0)
