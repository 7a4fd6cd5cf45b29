"""Finds the Redis server that holds a key: a single one, or one of a Redis Cluster.

    redis://[user:password@]host[:port][/db]           rediss:// the same over TLS
    redis-cluster://…, rediss-cluster://…              any node of a cluster

Options of the client may follow as a query, e.g. `?ssl_ca_certs=/etc/ca.pem`.
"""

from collections.abc import Hashable
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot

ONE_SERVER = 0


class RedisNodes:
    """Clients by key. All keys with the same hash tag are on one node, in one slot."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        where = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
        self.name = f"{parts.scheme}://{where}{parts.path}"  # without the password
        self.is_cluster = parts.scheme.endswith("-cluster")
        self._url = url.replace("-cluster://", "://", 1)
        self._options = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        self._cluster: RedisCluster | None = None
        self._client: Any = None if self.is_cluster else redis.Redis.from_url(url, **self._options)

    def slot(self, key: bytes) -> Hashable:
        """Return what keys must share to be in one command."""
        return key_slot(key) if self.is_cluster else ONE_SERVER

    def client_for(self, key: bytes) -> Any:
        """Return the client of the server that holds `key`."""
        if not self.is_cluster:
            return self._client
        cluster = self._connected()
        node: Any = cluster.nodes_manager.get_node_from_slot(key_slot(key))
        return cluster.get_redis_connection(node)

    def clients(self) -> list[Any]:
        """Return one client for each server that holds keys."""
        if not self.is_cluster:
            return [self._client]
        cluster = self._connected()
        return [cluster.get_redis_connection(node) for node in cluster.get_primaries()]  # type: ignore[no-untyped-call]

    def look_again(self) -> None:
        """Drop the slot map, after an error; the next use reads it anew."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def close(self) -> None:
        """Close all connections."""
        if self._cluster is not None:
            self._cluster.close()
        if self._client is not None:
            self._client.close()

    def _connected(self) -> RedisCluster:
        if self._cluster is None:
            self._cluster = RedisCluster.from_url(self._url, **self._options)
        return self._cluster
