"""An empty installation becomes the sample shop."""

from collections.abc import Iterator
from typing import Any

from flows.log.contract import Log
from headrace.loading.append import append_all
from headrace.sample.catalogue import SHOP
from headrace.sample.pictures import picture
from headrace.sample.visitors import DAY_MS, DAYS, behaviour
from schemas.registry import SchemaRegistry


class NotEmpty(Exception):
    """The log holds events already, which the sample would mix with."""

    def __init__(self) -> None:
        super().__init__("the log already holds events; the sample shop is for an empty installation "
                         "(--force adds it all the same)")  # fmt: skip


def products(now_ms: int) -> Iterator[dict[str, Any]]:
    """Yield the products, as `POST /v1/events` takes them."""
    for category, shelf in SHOP.items():
        for product in shelf:
            yield {
                "type": "product", "item": product.item, "ts_ms": now_ms - (DAYS + 2) * DAY_MS, "title": product.title,
                "category": category, "brand": product.brand, "price": product.price, "stock": product.stock,
                "image_url": picture(product.shape, product.colour),
                "attributes": {"kind": "refill" if product.lasts_days else "keeps"},
            }  # fmt: skip


def is_empty(log: Log) -> bool:
    """Return whether no event has ever been appended."""
    return not any(log.end().values())


def fill(log: Log, registry: SchemaRegistry, now_ms: int, force: bool = False) -> int:
    """Append the sample shop's products and two months of events that end now; return how many. Raises NotEmpty."""
    if not force and not is_empty(log):
        raise NotEmpty
    everything = [*products(now_ms), *behaviour(now_ms)]
    loaded, refused = append_all(log, everything, len(everything), registry, "sample shop")
    if refused:
        raise ValueError(f"the sample shop has events that are refused: {refused}")
    return loaded
