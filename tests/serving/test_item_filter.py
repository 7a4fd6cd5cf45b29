"""What is kept of a changing catalogue is what a fresh look at it says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import hash_id
from serving.catalogue.catalogue import Catalogue
from serving.http.rules_api import trial
from serving.request.requests import Filters
from serving.rules.acting import Acting
from serving.rules.item_filter import Selections

RULES = trial(
    {
        "rules": [
            {"id": "no", "action": "exclude", "where": "brand == 'b1' or attr.colour == 'red'"},
            {"id": "only", "action": "include", "where": "not under(category, 'c1')"},
            {"id": "few", "action": "min_stock", "least": 2},
            {"id": "poor", "action": "min_margin", "least": 0.2},
            {"id": "up", "action": "boost", "where": "price > 3", "factor": 2.0},
            {"id": "down", "action": "boost", "where": "number(attr.size) < 2", "factor": 0.5},
        ]
    }
)
FILTERS = [
    None, Filters(category="c2"), Filters(brands=("b0", "b2")), Filters(min_price=2, max_price=4),
    Filters(country="DE"), Filters(where="contains(seller, 's1')"),
]  # fmt: skip
maybe = st.none() | st.floats(0, 5)
products = st.builds(
    dict, brand=st.sampled_from(["", "b0", "b1", "b2"]), category=st.sampled_from(["", "c1", "c1/x", "c2/y"]),
    seller=st.sampled_from(["", "s1", "s2"]), price=maybe, margin=st.none() | st.floats(0, 1),
    stock=st.none() | st.integers(0, 3), gone=st.booleans(),
    attributes=st.dictionaries(st.sampled_from(["colour", "size", "countries"]), st.sampled_from(["red", "1", "DE"])),
)  # fmt: skip
changes = st.lists(st.dictionaries(st.integers(0, 30), products, min_size=1, max_size=5), min_size=1, max_size=8)


def look(selections, book):
    """Return all that selections say of a book's rules."""
    acting = Acting(tuple(book.book.rules))
    said = [selections.of(in_stock, filters, acting, 1).mask for in_stock in (False, True) for filters in FILTERS]
    return [*said, *(selections.matching(rule, 1) for rule in acting.rules), selections.factors(acting, 1)]


@given(changes, st.sets(st.integers(0, 7)))
def test_what_changes_is_followed(steps, looked_at):
    catalogue = Catalogue([b""])
    kept = Selections(catalogue)
    for n, step in enumerate(steps):
        ids = [f"i{k}" for k in step]
        catalogue.take(ids, np.array([hash_id(one) for one in ids], np.uint64), list(step.values()))
        if n in looked_at or n == len(steps) - 1:
            for followed, fresh in zip(look(kept, RULES), look(Selections(catalogue), RULES), strict=True):
                assert np.array_equal(followed, fresh)


def test_after_too_much_has_changed_everything_is_looked_at_again(monkeypatch):
    monkeypatch.setattr("serving.catalogue.catalogue.MOST_REMEMBERED", 3)
    catalogue = Catalogue([b""])
    hashes = np.arange(1, 11, dtype=np.uint64)
    kept = Selections(catalogue)
    for stock, n in ((1, 10), (0, 2), (1, 1), (0, 10), (1, 3), *((k % 2, 2) for k in range(200))):
        catalogue.take([f"i{k}" for k in range(n)], hashes[:n], [{"stock": stock}] * n)
        if stock:
            assert np.array_equal(look(kept, RULES)[6], look(Selections(catalogue), RULES)[6])
    assert catalogue.changed_since(1) is None
    assert catalogue.changed_since(catalogue.version - 1).tolist() == [0, 1]
