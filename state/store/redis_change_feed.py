"""The change feed of a Redis.

It is a connection of its own with client-side caching in broadcast mode: Redis pushes the names of all keys
with some prefixes as they are written. Answers come in order, so an answered PING proves that every write before it
has been reported. A reader without an answer for a while knows it, and goes by the age of its rows.
"""

import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
import structlog

from state.store.row_block import pack

ASK_EVERY_MS, PATIENCE_MS = 100, 10_000
CHUNK_BYTES = 1 << 16

log = structlog.get_logger()


class RedisChanges:
    """The feed of one Redis."""

    def __init__(self, client: Any, key_prefixes: Sequence[bytes]) -> None:
        pool = client.connection_pool
        self._connection = pool.connection_class(**(pool.connection_kwargs | {"protocol": 3}))
        self._prefixes = key_prefixes
        self._received = bytearray(CHUNK_BYTES)
        self._reader: Any = None
        """None: not connected."""
        self._told_all, self._said = False, False
        self._asked_ms = 0
        """When the question was put that is not answered yet, 0 for none."""
        self.heard_ms = 0

    def connect(self) -> None:
        """Ask Redis to report writes, unless it does already."""
        if self._reader is not None:
            return
        try:
            self._connection.connect()
            prefixes = [part for prefix in self._prefixes for part in ("PREFIX", prefix)]
            self._connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            reader = hiredis.Reader()  # from here on: what the client's own has read of a push would be lost
            while (answer := reader.gets()) is False:
                self._feed(reader)
            if isinstance(answer, hiredis.ReplyError):
                raise redis.ResponseError(str(answer))
            self._connection._sock.setblocking(False)
        except (redis.RedisError, OSError, hiredis.HiredisError) as error:
            if not self._said:  # it is tried again and again
                log.warning("no change feed: rows are read again as they grow old", error=str(error))
            self._said = True
            self._drop()
            return
        self._reader, self._told_all, self._said = reader, True, False

    def poll(self, now_ms: int) -> list[bytes] | None:
        """Return the keys written since the last call, None where some may have been missed."""
        if self._reader is None:
            return []
        written, everything, self._told_all = list[bytes](), self._told_all, False
        try:
            self._receive()
            while (answer := self._reader.gets()) is not False:
                if not isinstance(answer, list):
                    self.heard_ms, self._asked_ms = self._asked_ms, 0
                elif answer[0] == b"invalidate":
                    everything |= answer[1] is None  # the database was flushed
                    written += answer[1] or ()
            if not self._asked_ms and now_ms - self.heard_ms >= ASK_EVERY_MS:
                self._connection._sock.sendall(pack(("PING",)))
                self._asked_ms = now_ms
            if self._asked_ms and now_ms - self._asked_ms > PATIENCE_MS:
                raise TimeoutError(f"no answer for {PATIENCE_MS / 1000:.0f} s")
        except (OSError, hiredis.HiredisError) as error:
            log.warning("the change feed ended: rows are read again as they grow old", error=str(error))
            self._drop()
            return None
        return None if everything else written

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):  # that was all
            while True:
                self._feed(self._reader)

    def _feed(self, reader: Any) -> None:
        n = self._connection._sock.recv_into(self._received)
        if n == 0:
            raise ConnectionError("Redis closed the connection")
        reader.feed(self._received, 0, n)

    def _drop(self) -> None:
        self._connection.disconnect()
        self._reader, self.heard_ms, self._asked_ms = None, 0, 0
