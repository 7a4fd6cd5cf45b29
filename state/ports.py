"""Loopback ports for servers that are started here."""

import random
import socket
from collections import deque

LOWEST, HIGHEST = 20_000, 32_000
"""Below the range the system takes client ports from: a client that tries a port of that range
before the server listens can be given the very same port, and is then connected to itself."""

_given: deque[int] = deque(maxlen=1_000)
"""Their servers may not listen yet."""


def free_port() -> int:
    """Return a loopback port nobody listens on now, and none of the last this process was given."""
    while True:
        port = random.randint(LOWEST, HIGHEST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.append(port)
        return port
