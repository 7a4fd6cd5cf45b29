"""Ports are looked at before anything is started: a taken one is the setting's fault, and no restart mends it."""

import contextlib
import socket

from serving.settings import ServingSettings
from state.settings import PREFIX, BadSettings

PORTS = {"http_port": "or 0 for any", "grpc_port": "or 0 for any", "flow_metrics_port": "or 0 for none"}
"""Settings of ports, and what else they may be."""


def refuse_taken(settings: ServingSettings) -> None:
    """Raise BadSettings naming the setting of the first port that another program listens on."""
    with contextlib.ExitStack() as held:  # until all are tried, so that two settings of one port are found as well
        for name, otherwise in PORTS.items():
            port = getattr(settings, name)
            if not port or (settings.reuse_port and name != "flow_metrics_port"):
                continue
            try:
                for family, kind, _, _, address in _addresses(settings.http_host, port):
                    one = held.enter_context(socket.socket(family, kind))
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    one.bind(address)
                    one.listen(1)
            except OSError as error:
                raise BadSettings(
                    f"{PREFIX}{name.upper()}: port {port} of {settings.http_host} cannot be used ({error.strerror}); "
                    f"set it to a free one, {otherwise}"
                ) from None


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
    return socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # type: ignore[return-value]
