"""The store that a trial's thread reads; a hung Redis delays it no longer than a request."""

import time
from collections.abc import Sequence
from functools import partial

from serving.engine.guarded_store import GuardedStore
from state.store.contract import Reading, StoreUnavailable
from state.store.line import Line, LineBroken


class TrialStore(GuardedStore):
    """Reads of one thread over a line of its own. Once one has failed all fail at once: what was tried is of no use."""

    def __init__(self, live: GuardedStore) -> None:
        """`live`: the loop's; it is not used, only what it is made of."""
        super().__init__(live.plain, live.timeout_s, live.open_line)
        self._own: Line | None = None
        self._failed: str | None = None

    @property
    def is_away(self) -> bool:
        """Whether a read has failed."""
        return self._failed is not None

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        """Return what reads when it is called: nothing is sent before."""
        return partial(self._read, keys)

    def close(self) -> None:
        """Close the line of the trial's own."""
        if self._own is not None:
            self._own.close()
        super().close()

    def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self._failed is not None:
            raise StoreUnavailable(self._failed)
        try:
            if self.open_line is None:
                return self.plain.read(keys)
            line = self._own = self._own or self.open_line(self.timeout_s)
            return line.collect(line.ask(keys), time.perf_counter() + self.timeout_s)
        except (LineBroken, StoreUnavailable) as error:
            self._failed = str(error)
            raise StoreUnavailable(f"Redis: {error}") from None
