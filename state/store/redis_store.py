"""The store in Redis; the commit is in `state.store.redis_commits`."""

import contextlib
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from weakref import WeakSet

import redis
from redis.exceptions import LockNotOwnedError
from redis.lock import Lock

from state.rows import keys
from state.store.changes import ChangeFeed, NoChanges
from state.store.contract import Fenced, Positions, Reading, Rows, StoreUnavailable
from state.store.fenced_connection import FencedConnection
from state.store.line import Line, LineBroken, RedisLine, ThreadLine
from state.store.pipelined_reads import Asked, QuickReads
from state.store.redis_change_feed import RedisChanges
from state.store.redis_commits import RedisCommits, row_set_of
from state.store.redis_nodes import RedisNodes
from state.store.row_block import CHUNK, Command, RowSet

TIMEOUT_S = 10.0


class RedisStore:
    """Rows in one Redis, or in a cluster (`state.store.redis_nodes`).

    Commits of different lanes may run at the same time; those of one lane may not.

    After StoreUnavailable in a commit its outcome is unknown: read `positions` again.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._nodes = RedisNodes(url, timeout_s)
        self._commits = RedisCommits(self._nodes)
        self._feeds: WeakSet[ChangeFeed] = WeakSet()
        """Those that somebody still uses."""
        self._quick = None if self._nodes.is_cluster else QuickReads(self._nodes.client_for(b""), CHUNK)

    def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers and has loaded its data."""
        with self._trouble():
            for client in self._nodes.clients():
                client.ping()

    def evicts(self) -> str:
        """Return how Redis removes rows when its memory is full, "" where it removes none or does not report it."""
        with self._trouble():
            for client in self._nodes.clients():
                try:
                    found = {**client.config_get("maxmemory"), **client.config_get("maxmemory-policy")}
                    most, policy = found.get("maxmemory", 0), found.get("maxmemory-policy", "")
                except redis.ResponseError:  # a managed Redis may forbid CONFIG
                    memory = client.info("memory")
                    most, policy = memory.get("maxmemory", 0), memory.get("maxmemory_policy", "")
                if int(most) > 0 and policy not in ("", "noeviction"):
                    return f"{self._nodes.name} has maxmemory-policy {policy} and maxmemory {most}"
        return ""

    def positions(self, lane_prefix: bytes) -> Positions:
        """Return the lane's positions; a commit cut short after its commit point is finished first."""
        with self._trouble(lane_prefix):
            return self._commits.positions(lane_prefix)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none. Raises StoreUnavailable."""
        return self.begin_read(keys)()

    def begin_read(self, keys: Sequence[bytes]) -> Reading:
        """Send for values; the reading that is returned waits for them, and raises StoreUnavailable."""
        if self._quick is None:
            return partial(self._read_from_cluster, keys)
        return partial(self._collect, self._quick.ask(list(keys)))

    def _collect(self, asked: Asked) -> list[bytes | None]:
        with self._trouble():
            return asked()

    def _read_from_cluster(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: dict[bytes, bytes | None] = {}
        with self._trouble():
            for same_slot in self._by_slot(keys).values():
                pipeline = self._nodes.client_for(same_slot[0]).pipeline(transaction=False)
                for i in range(0, len(same_slot), CHUNK):
                    pipeline.mget(same_slot[i : i + CHUNK])
                values = [value for chunk in pipeline.execute() for value in chunk]
                found |= zip(same_slot, values, strict=True)
        return [found[key] for key in keys]

    def _by_slot(self, keys: Sequence[bytes]) -> dict[Hashable, list[bytes]]:
        groups: dict[Hashable, list[bytes]] = {}
        for key in keys:
            groups.setdefault(self._nodes.slot(key), []).append(key)
        return groups

    def commit(self, lane_prefix: bytes, expected: Positions, new: Positions, rows: Rows) -> None:
        """Write rows and positions. Raises Fenced, StoreUnavailable."""
        with self._trouble(lane_prefix):
            self._commits.commit(lane_prefix, expected, new, rows)

    def refresh(self, lane_prefix: bytes, expected: Positions, rows: Rows) -> None:
        """Write rows command by command under the watch. Raises Fenced, StoreUnavailable."""
        with self._trouble(lane_prefix):
            self._commits.refresh(lane_prefix, expected, rows)

    def scan(self, key_prefix: bytes) -> Iterator[list[bytes]]:
        """Yield the keys with this prefix in chunks, some of them empty; a key may come twice while the table grows."""
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in key_prefix) + b"*"
        with self._trouble():
            tagged = key_prefix.startswith(b"{") and b"}" in key_prefix
            clients = [self._nodes.client_for(key_prefix)] if tagged else self._nodes.clients()
        for client in clients:
            cursor = 0
            while True:
                with self._trouble():
                    cursor, found = client.scan(cursor, match=pattern, count=1000)
                yield list(found)
                if cursor == 0:
                    break

    def write(self, rows: Rows) -> None:
        """Set or remove keys, slot by slot. Raises StoreUnavailable."""
        with self._trouble():
            row_set = row_set_of(rows)
            for same_slot in self._by_slot(list(row_set.single)).values():
                part = RowSet({key: row_set.single[key] for key in same_slot})
                self._run(same_slot[0], part.commands())
            for block in row_set.blocks:
                part = RowSet()
                part.blocks.append(block)
                self._run(block.prefix, part.commands())

    def _run(self, key: bytes, commands: Iterable[Command]) -> None:
        pool = self._nodes.client_for(key).connection_pool
        connection = pool.get_connection()
        try:
            plain = FencedConnection(connection)
            for command in commands:
                plain.run(command)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def heartbeat(self, key: bytes, name: str, ttl_ms: int) -> list[str]:
        """Enter the set of processes at `key`; return the names of all seen within `ttl_ms`, sorted."""
        with self._trouble():
            client = self._nodes.client_for(key)
            seconds, micros = client.time()
            now_ms = seconds * 1000 + micros // 1000
            pipeline = client.pipeline(transaction=False)
            pipeline.zadd(key, {name: now_ms})
            pipeline.zremrangebyscore(key, "-inf", now_ms - ttl_ms)
            pipeline.zrange(key, 0, -1)
            return sorted(member.decode() for member in pipeline.execute()[-1])

    def deregister(self, key: bytes, name: str) -> None:
        """Take a name out of the set of processes at `key`."""
        with self._trouble():
            self._nodes.client_for(key).zrem(key, name)

    def acquire(self, key: bytes, name: str, ttl_ms: int) -> bool:
        """Take or renew the lease at `key`, atomically; return whether `name` has it now."""
        with self._trouble():
            lease = self._lease(key, name, ttl_ms)
            try:
                lease.reacquire()
            except LockNotOwnedError:
                return bool(lease.acquire(blocking=False, token=name))
            return True

    def release(self, key: bytes, name: str) -> None:
        """Give the lease at `key` back, atomically, if `name` has it."""
        with self._trouble(), contextlib.suppress(LockNotOwnedError):
            self._lease(key, name, 1).release()

    def _lease(self, key: bytes, name: str, ttl_ms: int) -> Lock:
        """Return the lock at `key` as `name` holds it, if it does: the scripts of Redis's client find that out."""
        lock = Lock(self._nodes.client_for(key), key.decode(), timeout=ttl_ms / 1000, thread_local=False)
        lock.local.token = name.encode()
        return lock

    def line(self, timeout_s: float) -> Line:
        """Return a line for reads with a deadline, over which Redis has just answered. Raises StoreUnavailable."""
        with self._trouble():
            if self._nodes.is_cluster:
                self.ping()
                return ThreadLine(self._read_from_cluster)
            pool = self._nodes.client_for(b"").connection_pool
            times = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
            line = RedisLine(pool.connection_class(**(pool.connection_kwargs | times | {"protocol": 2})), CHUNK)
            try:
                line.collect(line.ask([keys.GENERATION]), time.monotonic() + timeout_s)
            except LineBroken as error:
                raise ConnectionError(str(error)) from error
            return line

    def changes(self, key_prefixes: Sequence[bytes]) -> ChangeFeed:
        """Return the feed; in a cluster it reports nothing, since keys move between nodes."""
        if self._nodes.is_cluster:
            return NoChanges()
        feed = RedisChanges(self._nodes.client_for(b""), key_prefixes)
        self._feeds.add(feed)
        return feed

    def close(self) -> None:
        """Close all connections and feeds."""
        self._commits.close()
        for feed in self._feeds:
            feed.close()
        if self._quick is not None:
            self._quick.close()
        self._nodes.close()

    def _trouble(self, lane_prefix: bytes | None = None) -> "_Trouble":
        return _Trouble(self, lane_prefix)


class _Trouble:
    """Turns what redis-py raises into StoreUnavailable, and drops the lane's watch."""

    def __init__(self, store: RedisStore, lane_prefix: bytes | None) -> None:
        self._store, self._lane_prefix = store, lane_prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, GeneratorExit):
            return
        if self._lane_prefix is not None and not isinstance(error, Fenced):
            self._store._commits.reset(self._lane_prefix)
        if isinstance(error, redis.RedisError | OSError):
            nodes = self._store._nodes
            if nodes.is_cluster:  # the lane may have moved to another node
                self._store._commits.reset(self._lane_prefix or b"", moved=True)
                nodes.look_again()
            raise StoreUnavailable(f"Redis at {nodes.name}: {error}") from error
