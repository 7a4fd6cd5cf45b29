"""What Prometheus reads of a server: its own metrics, with the state it is in at this moment."""

from importlib.metadata import version

from prometheus_client import generate_latest

from serving.engine.metrics import ANCHOR_AGE, BUILD, CATALOGUE_ITEMS, RULES_VERSION, SERVER
from serving.engine.recommender import Recommender

BUILD.labels(version("headrace")).set(1)


def exposition(recommender: Recommender, now_ms: int) -> bytes:
    """Return the server's metrics as text."""
    shop = recommender.shop
    trained_ms = shop.index.created_ms if shop.index is not None else 0
    CATALOGUE_ITEMS.set(len(shop.catalogue))
    RULES_VERSION.set(shop.rules.version)
    ANCHOR_AGE.set(max(now_ms - trained_ms, 0) / 1000 if trained_ms else 0)
    return generate_latest(SERVER)
