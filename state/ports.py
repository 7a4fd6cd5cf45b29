"""Loopback ports for servers that are started here."""

import random
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the range the system takes client ports from: a client that tries a port of that range
before the server listens can be given the very same port, and is then connected to itself."""


def free_port() -> int:
    """Return a loopback port nobody listens on now."""
    while True:
        port = random.randint(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
