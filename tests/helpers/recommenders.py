"""Recommenders on rows folded in memory."""

from headrace.settings import Settings
from helpers.serving_rows import NOW, fold_into
from serving.engine.recommender import Recommender
from serving.request.requests import RecommendRequest
from state.store.contract import MemoryStore, StoreUnavailable


class Switchable(MemoryStore):
    """A store that can be out of reach."""

    away = False

    def read(self, keys):
        if self.away:
            raise StoreUnavailable("away")
        return super().read(keys)


def recommender_of(events, products=(), **settings):
    """Return a recommender, which shows items without a product too unless the settings say else, and its store."""
    settings = {"show_unknown_items": True, **settings}
    store = Switchable()
    fold_into(store, events, products)
    recommender = Recommender(store, Settings(server_cached_items=1000, **settings), "g1")
    recommender.refresh(NOW)
    return recommender, store


def ask(recommender, **request):
    (answer,) = recommender.recommend([RecommendRequest(**request)], NOW)
    return answer


def items(answer):
    return [one.item for one in answer.items]
