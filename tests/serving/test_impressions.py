import time

import pytest
from helpers.serving_rows import NOW, fold_into, shop_events

from flows.log.contract import LogUnavailable
from flows.log.open_log import open_log
from headrace.settings import Settings
from schemas.avro_decoder import Limits, decode
from schemas.registry import FolderRegistry
from serving.engine.impression_log import MOST_WAITING, Impressions
from serving.engine.metrics import SERVER as METRICS
from serving.engine.recommender import Recommender
from serving.request.requests import RecommendRequest
from state.store.contract import MemoryStore


@pytest.fixture(scope="module")
def shown():
    store = MemoryStore()
    fold_into(store, shop_events())
    recommender = Recommender(store, Settings(server_cached_items=1000), "g1")
    recommender.refresh(NOW)
    request = RecommendRequest(user="ann", count=3)
    return request, recommender.recommend([request], NOW)[0]


def counted(outcome):
    return METRICS.get_sample_value("headrace_impressions_total", {"outcome": outcome}) or 0


def test_every_list_is_written_before_the_end(shown, tmp_path):
    log = open_log(f"sqlite:{tmp_path}/log.sqlite")
    impressions = Impressions(log, FolderRegistry(), 1.0)
    for _ in range(350):
        impressions.note(*shown)
    impressions.close()
    n = 350 * len(shown[1].items)
    assert log.end()["impressions:0"] == n
    raw = log.read(log.end() | {"impressions:0": 0}, n, 1)
    decoded = decode(raw, FolderRegistry(), NOW + 10_000, Limits())
    assert (decoded.n_impressions, decoded.bad) == (n, [])
    log.close()


@pytest.mark.parametrize("error", [LogUnavailable("not now"), ValueError("a fault of ours")])
def test_what_the_log_does_not_take_is_counted_and_the_next_is_written(shown, error):
    class Failing:
        fails, taken = True, 0

        def append(self, messages):
            if self.fails:
                self.fails = False
                raise error
            self.taken += len(messages)

    log, before = Failing(), counted("dropped")
    impressions = Impressions(log, FolderRegistry(), 1.0)
    impressions.note(*shown)
    while log.fails:
        time.sleep(0.01)
    impressions.note(*shown)
    impressions.close()
    assert (log.taken, counted("dropped") - before) == (len(shown[1].items), len(shown[1].items))


def test_what_does_not_fit_is_dropped_and_counted(shown):
    impressions, before = Impressions(None, FolderRegistry(), 0.0), counted("dropped")
    impressions._share = 1.0  # and no thread that takes anything
    for _ in range(MOST_WAITING + 2):
        impressions.note(*shown)
    assert counted("dropped") - before == 2 * len(shown[1].items)
