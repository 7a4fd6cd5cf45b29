"""Reading many keys at once without the client's machinery, which costs more than the reading itself."""

import threading
from typing import Any

import redis

from state.store.row_block import pack

FAILURES = redis.RedisError, OSError


class Asked:
    """A read that one connection has sent; call it to wait for the values."""

    def __init__(self, connection: Any, client: Any, chunks: list[list[bytes]]) -> None:
        """Send; where `connection` is None or fails, the client reads the keys its own way when they are wanted."""
        self._connection, self._client, self._chunks = connection, client, chunks
        self._values: list[bytes | None] | None = None
        if connection is not None:
            try:
                commands = b"".join(pack(("MGET", *keys)) for keys in chunks)
                connection.send_packed_command([commands], check_health=False)
            except FAILURES:
                self._give_up()

    def collect(self) -> None:
        """Take the reply off the connection, which is then free."""
        if self._connection is not None:
            try:
                values: list[bytes | None] = []
                for _ in self._chunks:
                    values += self._connection.read_response()
                self._values, self._connection = values, None
            except FAILURES:
                self._give_up()

    def _give_up(self) -> None:
        self._connection.disconnect()  # it connects anew when it is used again
        self._connection = None

    def __call__(self) -> list[bytes | None]:
        """Return the values, None for keys that are not there."""
        self.collect()
        if self._values is None:
            self._values = [value for keys in self._chunks for value in self._client.mget(keys)]
        return self._values


class QuickReads:
    """One connection to one Redis for each thread that reads; where that fails, the client tries once more its own way.

    A server answers from the same thread all its life, so nothing needs to be fetched from a pool and put back.
    """

    def __init__(self, client: Any, most: int) -> None:
        """`most`: keys of one command."""
        self._client, self._most, self._mine = client, most, threading.local()
        self._all: list[Any] = []

    def ask(self, keys: list[bytes]) -> Asked:
        """Send for the values of keys and do not wait for them."""
        last: Asked | None = getattr(self._mine, "asked", None)
        if last is not None:
            last.collect()
        chunks = [keys[i : i + self._most] for i in range(0, len(keys), self._most)]
        self._mine.asked = asked = Asked(self._connection(), self._client, chunks)
        return asked

    def _connection(self) -> Any:
        """Return this thread's connection, None where none is to be had."""
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            try:
                connection = self._mine.connection = self._client.connection_pool.get_connection()
                self._all.append(connection)
            except FAILURES:
                return None
        return connection

    def close(self) -> None:
        """Close the connections."""
        for connection in self._all:
            connection.disconnect()
