"""Leases of lanes: the store decides which process folds which lane; no other service is needed.

Every process puts its name and the time into a sorted set; those seen lately share
the lanes by rank (lane mod processes). A lane's lease is a key with a time to live.
Leases only keep processes from disturbing each other: what keeps rows right is the
fence of the commit (`state.store.redis_commits`), whoever holds a lease.
"""

from collections.abc import Iterable

from state.rows import keys
from state.store.redis_store import RedisStore


class Leases:
    """One process's share of a generation's lanes. Call `look` more often than every `ttl_s`."""

    def __init__(self, store: RedisStore, generation: str, n_lanes: int, name: str, ttl_s: float) -> None:
        self._store, self._generation, self._n_lanes = store, generation, n_lanes
        self._name, self._ttl_ms = name, int(ttl_s * 1000)
        self.owned: set[int] = set()

    def look(self) -> tuple[set[int], set[int]]:
        """Renew what is held; return (lanes held and wanted, lanes held that another process should have)."""
        members = self._store.heartbeat(keys.members(self._generation), self._name, self._ttl_ms)
        rank = members.index(self._name)
        wanted = {lane for lane in range(self._n_lanes) if lane % len(members) == rank}
        return self._hold(wanted)

    def release(self, lanes: Iterable[int]) -> None:
        """Let go of lanes; their commits must be done."""
        for lane in list(lanes):
            self._store.release(self._key(lane), self._name)
            self.owned.discard(lane)

    def deregister(self) -> None:
        """Let go of everything, so that others need not wait for the leases to run out."""
        self.release(self.owned)
        self._store.deregister(keys.members(self._generation), self._name)

    def _hold(self, wanted: set[int]) -> tuple[set[int], set[int]]:
        held = {lane for lane in self.owned | wanted if self._store.acquire(self._key(lane), self._name, self._ttl_ms)}
        self.owned = held
        return held & wanted, held - wanted

    def _key(self, lane: int) -> bytes:
        return keys.owner(keys.prefix(self._generation, lane))


class PlacedLeases(Leases):
    """Leases of the lanes that an engine has placed here: lane mod `n_parts` == `part`, whatever other processes do.

    They keep a second cluster of the engine standing by, where it would fence the first again and again.
    """

    def __init__(
        self, store: RedisStore, generation: str, n_lanes: int, name: str, ttl_s: float, share: tuple[int, int]
    ) -> None:
        """`share` is (part, n_parts)."""
        super().__init__(store, generation, n_lanes, f"{name}-{share[0]}", ttl_s)
        part, n_parts = share
        self._wanted = {lane for lane in range(n_lanes) if lane % n_parts == part}

    def look(self) -> tuple[set[int], set[int]]:
        """Renew what is held; return (lanes held, nothing): no other part of the engine wants them."""
        return self._hold(self._wanted)

    def deregister(self) -> None:
        """Let go of everything."""
        self.release(self.owned)
