"""The HTTP port: bound before anything is loaded, listened on when the server can answer."""

import socket

from serving.settings import ServingSettings
from state.settings import PREFIX, BadSettings

BACKLOG = 2048


def bind(settings: ServingSettings) -> list[socket.socket]:
    """Return a socket for each address of the host; nobody is connected yet. Raises BadSettings."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            settings.http_host or None, settings.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.reuse_port:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
    except OSError as error:
        _close(sockets)
        raise _taken(settings, error) from None
    return sockets


def listen(settings: ServingSettings, sockets: list[socket.socket]) -> None:
    """From now on clients are connected. Raises BadSettings where another server was faster."""
    try:
        for one in sockets:
            one.listen(BACKLOG)
    except OSError as error:
        _close(sockets)
        raise _taken(settings, error) from None


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _taken(settings: ServingSettings, error: OSError) -> BadSettings:
    where = f"port {settings.http_port} of {settings.http_host}"
    return BadSettings(f"{PREFIX}HTTP_PORT: {where} cannot be had: {error.strerror}")
