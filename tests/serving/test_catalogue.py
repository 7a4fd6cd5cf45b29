"""A catalogue follows what the shop says of its products."""

import asyncio

import pytest
from helpers.books import books_of
from helpers.fold_oracle import Event
from helpers.recommenders import recommender_of
from helpers.serving_rows import NOW, product

from headrace.settings import Settings
from serving.app.follower import Follower
from serving.auth.api_keys import Guard
from serving.engine.recommender import Recommender
from state.store.contract import StoreUnavailable

N_ITEMS = 30


@pytest.fixture
def shop(tmp_path):
    """A store with products, what a recommender that has read all of them knows, and one that has read none."""
    known, store = recommender_of(
        [Event("ann", "i0", NOW)], [product(f"i{n}", f"Item {n}", price=float(n)) for n in range(N_ITEMS)]
    )
    settings = Settings(server_cached_items=1000, data_dir=tmp_path)
    return store, known.shop.catalogue, Recommender(store, settings, "g1"), settings


def test_many_changes_are_taken_over_in_parts(shop):
    _, known, fresh, _ = shop
    sizes = []
    while not sizes or fresh.shop.catalogue.behind:
        fresh.refresh(NOW, 7)
        sizes.append(len(fresh.shop.catalogue))
    assert sizes == [7, 14, 21, 28, 30]
    assert [fresh.shop.catalogue.item(row) for row in range(N_ITEMS)] == [known.item(row) for row in range(N_ITEMS)]
    fresh.refresh(NOW, 7)
    assert not fresh.shop.catalogue.behind


def test_no_change_is_lost_where_the_store_goes_away_between_two_readings(shop, monkeypatch):
    monkeypatch.setattr("serving.engine.guarded_store.BREAK_S", 0)
    store, known, fresh, _ = shop
    read = store.read

    def without_products(wanted):
        if any(b"}p:" in key for key in wanted):
            raise StoreUnavailable("away")
        return read(wanted)

    monkeypatch.setattr(store, "read", without_products)
    with pytest.raises(StoreUnavailable):
        fresh.refresh(NOW)
    monkeypatch.setattr(store, "read", read)
    fresh.refresh(NOW)
    assert fresh.shop.catalogue.titles == known.titles == [f"Item {n}" for n in range(N_ITEMS)]


def test_a_running_server_takes_over_only_so_many_changes_at_a_look(shop, monkeypatch, tmp_path):
    monkeypatch.setattr("serving.app.follower.CHANGES_AT_ONCE", 5)
    monkeypatch.setattr("serving.app.follower.TIMES", 2)
    store, _, fresh, settings = shop
    follower = Follower(fresh, settings, Guard(tmp_path / "keys"), books_of(store))

    async def look():
        await follower.look()
        await follower.saved()
        return len(fresh.shop.catalogue), fresh.shop.catalogue.behind

    follower.ready = True
    assert [asyncio.run(look()) for _ in range(2)] == [(15, True), (30, False)]
    starting = Recommender(store, settings, "g1")
    asyncio.run(Follower(starting, settings, Guard(tmp_path / "keys"), books_of(store)).look())
    assert len(starting.shop.catalogue) == N_ITEMS
