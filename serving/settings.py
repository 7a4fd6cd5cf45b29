"""Settings of a server: plain values, which `headrace.settings` reads."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field

from flows.settings import FlowSettings


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, seen from itself; "" is every address of it, and so is not."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class ServingSettings(FlowSettings):
    """Settings of a server: addresses, access, and what its answers depend on."""

    http_port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP server")
    grpc_port: int = Field(8081, ge=0, le=65535, description="Port of the gRPC server")
    reuse_port: bool = Field(False, description="Several servers may listen on the same port; the kernel shares it out")
    keys_file: Path | None = Field(None, description="File of API keys; default: keys.json in data_dir")
    allow_anonymous: bool = Field(
        False, description="Callers without an API key may ask for recommendations and send events, and no more"
    )
    cors_origins: str = Field(
        "",
        pattern=r"^(\*|https?://[^\s,/]+(, ?https?://[^\s,/]+)*)?$",
        description="Origins whose pages may call the server from browsers (https://shop.example), separated by commas;"
        " *: all; empty: none",
    )
    http_certificate: Path | None = Field(None, description="HTTP over TLS: the server's certificate chain (PEM)")
    http_private_key: Path | None = Field(None, description="HTTP over TLS: its private key (PEM)")
    grpc_certificate: Path | None = Field(None, description="gRPC over TLS: the server's certificate chain (PEM)")
    grpc_private_key: Path | None = Field(None, description="gRPC over TLS: its private key (PEM)")
    grpc_client_ca: Path | None = Field(None, description="gRPC over mutual TLS: who signs clients' certificates (PEM)")
    store_timeout_s: float = Field(
        0.1, gt=0, description="How long an answer waits for Redis, all its reads together, before it does without"
    )
    impressions_share: float = Field(
        0, ge=0, le=1, description="Share of the answers whose items go to the impressions topic"
    )
    default_count: int = Field(20, ge=1, le=200, description="Items in an answer when the request does not say")
    exclude_purchased: bool = Field(False, description="Leave out what the user bought, unless the request says")
    exclude_out_of_stock: bool = Field(True, description="Leave out items with stock 0, unless the request says")
    show_unknown_items: bool = Field(
        False, description="Show items without a title too; else none of them once any item of the shop has one"
    )
    ranker: Literal["auto", "off"] = Field(
        "auto", description="Order the likeliest items by the anchor's trees, where it has some; off: by likelihood"
    )
    item_ttl_ms: int = Field(500, ge=0, description="How long a server reuses an item row")
    server_cached_items: int = Field(200_000, ge=1000, description="Item rows a server keeps in memory")

    @property
    def origins(self) -> tuple[str, ...]:
        """Return the origins whose pages may call the server."""
        return tuple(one.strip() for one in self.cors_origins.split(",") if one.strip())

    @property
    def offline_dir(self) -> Path:
        """Return the folder of what servers answer from without Redis."""
        return self.data_dir / "last-good"

    @property
    def keys_path(self) -> Path:
        """Return the file of the API keys."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def is_local(self) -> bool:
        """Return whether only programs on this machine can reach the servers."""
        return is_loopback(self.http_host)
