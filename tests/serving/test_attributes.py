"""Any number of attributes can be used in rules and filters, and what no item carries any more takes no memory."""

import numpy as np
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import items, recommender_of
from helpers.serving_rows import NOW, product
from hypothesis import given
from hypothesis import strategies as st

from headrace.settings import Settings
from schemas.ids import hash_id
from serving.catalogue import attributes as attributes_module
from serving.catalogue.attributes import Attributes
from serving.catalogue.catalogue import Catalogue
from serving.engine.offline_copy import OfflineSnapshot
from serving.engine.recommender import Recommender
from serving.request.columns import TextColumn
from serving.request.conditions import ItemCondition
from serving.request.requests import Filters, RecommendRequest
from serving.rules.acting import Compiled
from serving.rules.book_store import to_book

names = st.sampled_from("abc")
values = st.dictionaries(names, st.sampled_from(["", "x", "y", "z"]), max_size=3)


def texts(text):
    return [text.words[code] for code in text.codes.tolist()]


@given(st.lists(st.tuples(st.integers(0, 4), values, names), max_size=30), st.sampled_from([0, 1 << 20]))
def test_columns_say_what_the_items_carry(steps, kept_bytes):
    kept, plain = Attributes(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributes_module, "KEPT_BYTES", kept_bytes)
        for row, carried, name in steps:
            at = min(row, len(plain))
            plain[at : at + 1] = [carried]
            kept.set(at, carried)
            expected = [one.get(name, "") for one in plain]
            assert texts(kept.text(name, None)) == expected
            assert texts(kept.text(name, np.array([at, 0]))) == [expected[at], expected[0]]
    assert [dict(kept.get(row)) for row in range(len(plain))] == plain


def test_words_and_names_that_no_item_carries_any_more_are_forgotten():
    kept, column = Attributes(), TextColumn(3)
    for n in range(10_000):
        column.set(n % 3, f"word{n}")
        kept.set(0, {f"name{n}": "x", "updated": str(n)})
        assert texts(kept.text(f"name{n}", None)) == ["x"]
        assert texts(kept.text("updated", None)) == [str(n)]
    assert len(column.view(3).words) <= 1 + 3 + 1
    assert [column.get(row) for row in range(3)] == ["word9999", "word9997", "word9998"]
    assert kept._n_items.keys() == kept._columns.keys() == {"name9999", "updated"}
    assert len(kept._columns["updated"].view(1).words) <= 3


def test_filters_on_thousands_of_names_take_no_memory(monkeypatch):
    monkeypatch.setattr(attributes_module, "KEPT_BYTES", 40_000)
    catalogue = Catalogue([b""])
    ids = [f"i{n}" for n in range(1000)]
    hashes = np.array([hash_id(item) for item in ids], np.uint64)
    catalogue.take(ids, hashes, [{"attributes": {f"a{n}": "yes"}} for n in range(1000)])
    for n in range(3000):
        found = np.flatnonzero(ItemCondition(f"attr.a{n} == 'yes'").mask(catalogue, 1000)).tolist()
        assert found == ([n] if n < 1000 else [])
    assert sum(column.n_bytes for column in catalogue._attributes._columns.values()) <= 40_000


def many_attributes():
    """The shop of field case L2: seventy names, each on one item, and the one that counts on the last."""
    return [product(f"attr{n}", f"T{n}", attributes={f"name_{n:02}": "yes"}) for n in range(70)] + [
        product("weapon", "Weapon", attributes={"banned": "yes"})
    ]


RULES = [
    {"id": "no-banned", "action": "exclude", "where": 'attr.banned == "yes"'},
    {"id": "no-early", "action": "exclude", "where": 'attr.name_03 == "yes"'},
]


def test_a_rule_on_the_seventieth_attribute_holds_also_after_a_restart(tmp_path):
    recommender, store = recommender_of([Event("ann", one.item, NOW) for one in many_attributes()], many_attributes())
    restarted = Recommender(store, Settings(server_cached_items=1000), "g1")
    restarted.refresh(NOW)
    from_disk = Recommender(store, Settings(server_cached_items=1000), "g1")
    OfflineSnapshot(tmp_path).save(recommender.shop)
    assert OfflineSnapshot(tmp_path).load_into(from_disk.shop)
    for one in (recommender, restarted, from_disk):
        one.shop.rules = Compiled(to_book({"rules": RULES}), 1)
        shown = items(one.recommend([RecommendRequest(count=100, strategy="popular")], NOW)[0])
        assert len(shown) == 69
        assert not {"weapon", "attr3"} & set(shown)
        only = Filters(where='attr.banned == "yes" or attr.name_69 == "yes"')
        shown = items(one.recommend([RecommendRequest(count=100, strategy="popular", filters=only)], NOW)[0])
        assert shown == ["attr69"]
