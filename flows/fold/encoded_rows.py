"""A cache of encoded rows, for kinds that few users have: a table of slots would be almost empty."""

from collections.abc import Callable, Iterable

from state.store.contract import Store

MAX_CACHED = 200_000


class EncodedRows:
    """Encoded rows by user, and which of them the batch changed."""

    def __init__(self, store: Store, key_of: Callable[[int], bytes]) -> None:
        self._store, self._key_of = store, key_of
        self._rows: dict[int, tuple[int, bytes | None]] = {}
        """By user: the batch that used the row last, and the row; those used last are behind."""
        self._changed: dict[int, bytes | None] = {}
        self._batch = 0

    def clear(self) -> None:
        """Empty the cache."""
        self._rows.clear()
        self._changed.clear()

    def begin_round(self) -> None:
        """Begin a batch; rows that the last two have used stay, as they may not be in the store yet."""
        self._batch += 1
        while len(self._rows) > MAX_CACHED:
            user = next(iter(self._rows))
            if self._rows[user][0] >= self._batch - 2:
                break
            del self._rows[user]

    def have_none(self, users: Iterable[int]) -> None:
        """Take note that these users have no row in the store."""
        self._rows |= dict.fromkeys(users, (self._batch, None))

    def read(self, users: list[int]) -> list[bytes | None]:
        """Return the rows of users, None where there is none."""
        missing = [user for user in users if user not in self._rows]
        if missing:
            values = self._store.read([self._key_of(user) for user in missing])
            self._rows |= {user: (self._batch, value) for user, value in zip(missing, values, strict=True)}
        return [self._rows[user][1] for user in users]

    def put(self, user: int, row: bytes | None) -> None:
        """Replace a user's row; None removes it."""
        self._rows.pop(user, None)
        self._rows[user] = self._batch, row
        self._changed[user] = row

    def write(self, rows: dict[bytes, bytes | None]) -> None:
        """Put the rows that changed since the last call into `rows`."""
        for user, row in self._changed.items():
            rows[self._key_of(user)] = row
        self._changed.clear()
