import numpy as np
import pytest

from schemas.ids import hash_id
from serving.candidates.pool import Pool, uniform
from serving.catalogue.catalogue import Catalogue
from serving.request.requests import Filters
from serving.rules.acting import Compiled
from serving.rules.item_filter import Selections
from serving.rules.model import Book
from serving.snapshot.scratch import Scratch

N = 400
IDS = [f"item-{n}" for n in range(N)]
HASHES = np.array([hash_id(item) for item in IDS], np.uint64)


@pytest.fixture(scope="module")
def catalogue():
    found = Catalogue([b"{g:0}"])
    found.take(IDS, HASHES, [{"price": n, "gone": n % 3 == 0} for n in range(N)])
    return found


def pool_of(catalogue, filters=None):
    acting = Compiled(Book()).acting(lambda: None)
    pool = Pool(catalogue, Selections(catalogue).of(False, filters, acting, 0), Scratch())
    pool.add(HASHES[:100], np.arange(100, 0, -1.0), uniform("personalised", lambda k: None))
    pool.leave_out(HASHES[100:110])
    return pool


@pytest.mark.parametrize("filters", [None, Filters(min_price=N - 30)])
def test_items_at_random_are_those_that_may_be_shown_and_are_all_as_likely(catalogue, filters):
    allowed = {n for n in range(110, N) if n % 3 and (filters is None or n >= N - 30)}
    n, turns, pool = 12, 4000, pool_of(catalogue, filters)
    times = np.zeros(N)
    for seed in range(turns):
        rows = pool.unseen_sample(n, np.random.default_rng(seed))
        assert len(set(rows.tolist())) == n
        times[rows] += 1
    assert set(np.flatnonzero(times).tolist()) == allowed
    expected = n * turns / len(allowed)
    assert np.abs(times[sorted(allowed)] - expected).max() < 5 * np.sqrt(expected)


def test_where_fewer_are_left_all_of_them_come(catalogue):
    rows = pool_of(catalogue, Filters(min_price=N - 30)).unseen_sample(100, np.random.default_rng(1))
    assert sorted(rows.tolist()) == [n for n in range(N - 30, N) if n % 3]


@pytest.mark.parametrize("n", [1, 5, 20, 500])
def test_the_last_items_are_the_newest_first(catalogue, n):
    for filters in (None, Filters(min_price=30, max_price=N - 100), Filters(max_price=4), Filters(min_price=N)):
        selection = pool_of(catalogue, filters).selection
        assert selection.last(n).tolist() == np.flatnonzero(selection.mask)[::-1][:n].tolist()
