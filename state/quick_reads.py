"""Reading many keys at once without the client's machinery, which costs more than the reading itself."""

import threading
from typing import Any

import redis

from state.row_block import pack


class QuickReads:
    """One connection to one Redis for each thread that reads; where that fails, the client tries once more its own way.

    A server answers from the same thread all its life, so nothing needs to be fetched from a pool and put back.
    """

    def __init__(self, client: Any) -> None:
        self._client, self._mine = client, threading.local()
        self._all: list[Any] = []

    def mget(self, keys: list[bytes]) -> list[bytes | None]:
        """Return the values of keys, None for those that are not there."""
        connection = getattr(self._mine, "connection", None)
        try:
            if connection is None:
                connection = self._mine.connection = self._client.connection_pool.get_connection()
                self._all.append(connection)
            connection.send_packed_command([pack(("MGET", *keys))], check_health=False)
            return list(connection.read_response())
        except (redis.ConnectionError, redis.TimeoutError):
            if connection is not None:
                connection.disconnect()  # it connects anew when it is used again
            return list(self._client.mget(keys))

    def close(self) -> None:
        for connection in self._all:
            connection.disconnect()
