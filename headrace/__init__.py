"""The face of the product: command line, settings, client, benchmarks, torture.

It may import everything, and nothing imports it. Begin with `headrace.cli.main`, the table of commands, or with
`headrace.client` for a program of your own.

>>> import headrace
>>> headrace.Client("http://127.0.0.1:8080").recommend(user="ann", count=3)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.client import Client as Client
    from headrace.client import ServerError as ServerError

__all__ = ["Client", "ServerError"]


def __getattr__(name: str) -> Any:
    """Import the client when it is used: a flow or a server, which begin here too, need no HTTP client."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from headrace import client

    return getattr(client, name)
