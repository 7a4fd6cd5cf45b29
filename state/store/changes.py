"""Feeds of changed keys: a cached row is valid until its key is reported."""

from typing import Protocol


class ChangeFeed(Protocol):
    """Keys under some prefixes, as they are written.

    A server's follower polls it five times a second, from one thread at a time; `connect` runs aside, since it alone
    may block. No method raises: a feed that broke reports that any key may have changed, and is connected again.
    """

    heard_ms: int
    """Every write before this moment was reported; 0: nothing is known."""

    def connect(self) -> None:
        """Begin, or begin again after trouble; does nothing where it runs. May wait for the network, never raises."""

    def poll(self, now_ms: int) -> list[bytes] | None:
        """Return keys written since the last call, None: any key may have been. Waits for nothing, never raises."""

    def close(self) -> None:
        """Release the connection; `connect` begins again."""


class NoChanges:
    """The feed of a store that cannot report writes."""

    heard_ms = 0

    def connect(self) -> None:
        """Nothing to begin."""

    def poll(self, now_ms: int) -> list[bytes] | None:
        """Return no keys: readers go by the age of their rows alone."""
        return []

    def close(self) -> None:
        """Nothing to release."""
