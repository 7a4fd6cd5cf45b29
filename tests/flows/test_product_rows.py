"""What a product is after whole products and updates of it, in every order of their two topics."""

from itertools import pairwise

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from flows.fold.product_rows import UNKNOWN, decode_product, encode_product, merge_change
from schemas.events import Change, ProductChange

NAMES = ("title", "price", "attr.a", "attr.b", "attributes")


def whole(ts_ms, **fields):
    return ProductChange(0, "i", ts_ms, fields)


def update(ts_ms, **fields):
    named = {name.replace("attr_", "attr."): value for name, value in fields.items()}
    return ProductChange(0, "i", ts_ms, named, Change.MERGE)


def replacement(ts_ms, **fields):
    return ProductChange(0, "i", ts_ms, fields, Change.REPLACE)


GONE = ProductChange(0, "i", 0, None)


def gone(ts_ms):
    return ProductChange(0, "i", ts_ms, None, Change.REPLACE)


def after(*changes):
    """Return the row's fields after the changes, its bytes read back each time."""
    row = UNKNOWN
    for change in changes:
        row = decode_product(encode_product("i", merge_change(row, change)))
    return row.fields | ({"gone": True} if row.gone else {})


TEA = {"title": "Tea", "price": 4.0, "attributes": {"a": "1", "b": "2"}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([whole(1, **TEA), update(2, stock=0)], {**TEA, "stock": 0}),
        ([whole(1, **TEA), update(2, price=None)], {"title": "Tea", "attributes": {"a": "1", "b": "2"}}),
        ([whole(1, **TEA), update(2, attr_a=None, attr_c="3")], {**TEA, "attributes": {"b": "2", "c": "3"}}),
        ([whole(1, **TEA), update(2, attributes=None)], {"title": "Tea", "price": 4.0}),
        ([whole(1, **TEA), update(2, attributes=None, attr_c="3")], {**TEA, "attributes": {"c": "3"}}),
        ([whole(1, **TEA), replacement(2, stock=1)], {"stock": 1}),
        ([whole(1, **TEA), whole(2, price=5.0)], {"price": 5.0}),
        ([update(1, stock=3)], {"stock": 3}),
        # Between the topics the later time decides, and the update where they are equal.
        ([update(3, stock=0), whole(2, stock=9, title="T")], {"stock": 0, "title": "T"}),
        ([update(2, stock=0), whole(2, stock=9)], {"stock": 0}),
        ([update(1, stock=0), whole(2, stock=9)], {"stock": 9}),
        ([whole(2, stock=9), update(1, stock=0)], {"stock": 9}),
        ([replacement(3, stock=0), whole(2, stock=9)], {"stock": 0}),
        (
            [update(3, attributes=None, attr_a="9"), whole(2, attributes={"a": "1", "b": "2"})],
            {"attributes": {"a": "9"}},
        ),
        # On a topic the order of the log does.
        ([update(5, stock=1), update(4, stock=2)], {"stock": 2}),
        ([whole(5, stock=1), whole(4, stock=2)], {"stock": 2}),
        # An item that is gone comes back with a whole product or a title.
        ([whole(1, **TEA), gone(2)], {"gone": True}),
        ([whole(1, **TEA), GONE], {"gone": True}),
        ([whole(1, **TEA), gone(2), update(3, stock=2)], {"gone": True, "stock": 2}),
        ([whole(1, **TEA), GONE, update(3, title="T", stock=2)], {"title": "T", "stock": 2}),
        ([gone(2), update(3, stock=2), update(4, title="T")], {"title": "T", "stock": 2}),
        ([gone(2), replacement(3, stock=2)], {"stock": 2}),
        ([gone(2), whole(3, stock=2)], {"stock": 2}),
        ([gone(2), whole(1, stock=2)], {"gone": True}),
    ],
    ids=str,
)
def test_a_change_changes_what_it_names(changes, expected):
    assert after(*changes) == expected


def test_a_product_that_was_never_updated_rests_as_its_record_is():
    row = merge_change(UNKNOWN, whole(7, title="Tea", brand=None))
    assert encode_product("i", row) == b'{"brand":null,"item":"i","title":"Tea","ts_ms":7}'


def test_a_row_keeps_when_each_field_was_updated():
    row = merge_change(UNKNOWN, update(7, title="Tea", stock=1))
    row = merge_change(row, update(9, stock=0))
    expected = {"item": "i", "ts_ms": 0, "title": "Tea", "stock": 0, "changed": {"7": ["title"], "9": ["stock"]}}
    assert orjson.loads(encode_product("i", row)) == expected


@pytest.mark.parametrize(
    ("changes", "has"),
    [
        ([whole(1)], True),
        ([replacement(1, stock=1)], True),
        ([update(1, stock=1)], False),
        ([update(1, stock=1), update(2, price=3.0)], True),
        ([whole(1), gone(2), update(3, stock=1)], False),
        ([GONE, update(3, title="T")], False),
        ([GONE, update(3, title="T", category="c")], True),
    ],
    ids=str,
)
def test_events_set_the_facts_of_an_item_until_its_product_has_some(changes, has):
    row = UNKNOWN
    for change in changes:
        row = merge_change(row, change)
    assert row.has_facts is has


VALUES = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.sampled_from("xyz")), min_size=1)
UPDATES = st.one_of(
    st.builds(lambda named: named | ({"attributes": None} if "attributes" in named else {}), VALUES).map(
        lambda named: (Change.MERGE, dict(sorted(named.items(), key=lambda one: one[0] != "attributes")))
    ),
    st.just((Change.REPLACE, {"title": "r"})),
    st.just((Change.REPLACE, None)),
)
WHOLES = st.dictionaries(st.sampled_from(("title", "price")), st.sampled_from("xyz")).map(
    lambda fields: {**fields, "attributes": {"a": "1"}}
)


@given(st.data())
def test_law_3_topics_may_be_read_in_any_order_while_times_grow_on_each(data):
    streams = []
    for values in (data.draw(st.lists(WHOLES, max_size=4)), data.draw(st.lists(UPDATES, max_size=5))):
        times = sorted(data.draw(st.lists(st.integers(1, 9), min_size=len(values), max_size=len(values), unique=True)))
        streams.append(list(zip(times, values, strict=True)))
    wholes = [ProductChange(0, "i", ts_ms, fields) for ts_ms, fields in streams[0]]
    updates = [ProductChange(0, "i", ts_ms, named, change) for ts_ms, (change, named) in streams[1]]
    assert all(a.ts_ms < b.ts_ms for own in (wholes, updates) for a, b in pairwise(own))
    turns = data.draw(st.permutations([0] * len(wholes) + [1] * len(updates)))
    left = [list(wholes), list(updates)]
    mixed = [left[turn].pop(0) for turn in turns]
    in_time = sorted([*wholes, *updates], key=lambda one: (one.ts_ms, one.change))
    assert after(*mixed) == after(*in_time)
