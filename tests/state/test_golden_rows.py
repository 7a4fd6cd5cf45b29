"""Bytes are promises: when one of these fails, the code is what changes."""

import numpy as np
import pytest
from helpers.golden import GOLDEN
from helpers.golden import golden_bytes as golden

from state.rows import keys, lane_rows
from state.rows.item_rows import decode_items, empty_items, encode_items
from state.rows.purchase_rows import decode_purchases, empty_purchases, encode_purchase_totals, pack_purchases
from state.rows.refusal_rows import decode_refusals, empty_refusals, encode_refusals, refused_items
from state.rows.row_codec import unpack_rows
from state.rows.user_rows import FLAG_REFUSES, decode_users, empty_users, encode_users
from state.rows.vector_rows import encode_vector
from state.store.contract import encode_positions

pytestmark = pytest.mark.law(n=8)

ITEM_COLUMNS = (
    "n", "flags", "price", "first_ms", "category", "brand", "total", "support", "repeat", "kinds", "count",
    "pop_epoch", "pop", "neighbour", "weight",
)  # fmt: skip
USER_COLUMNS = (
    "n", "seen", "last_ms", "first_ms", "price_sum", "price_square", "price_n", "affinity_epoch", "counts",
    "affinity_id", "affinity", "hours", "days", "item", "gap_ms", "kind",
)  # fmt: skip


def numbered(columns, n):
    """Fill every column of slot 0 with small numbers that differ from place to place."""
    for c, column in enumerate(columns):
        column[0] = (np.arange(column[0].size) % 100 + c).reshape(column[0].shape)
    columns[0][0] = n


def item_rows():
    rows = empty_items(1)
    numbered([rows[name] for name in ITEM_COLUMNS], 3)
    rows["neighbour"][0, 3:] = 0
    rows["weight"][0, :, 3:] = 0
    return rows


def user_rows():
    rows = empty_users(1)
    numbered([rows[name] for name in USER_COLUMNS], 4)
    for column in (rows["item"], rows["gap_ms"], rows["kind"]):
        column[0, 4:] = 0
    return rows


def test_item_rows_keep_their_bytes_narrow_and_wide():
    rows = item_rows()
    assert encode_items(rows, np.array([0])) == [golden("item_narrow")]
    rows["weight"][0, 1, 2] = 65_536
    assert encode_items(rows, np.array([0])) == [golden("item_wide")]
    read = empty_items(1)
    decode_items([golden("item_wide")], np.array([0]), read)
    assert np.array_equal(read, rows)


def test_user_rows_keep_their_bytes():
    assert encode_users(user_rows(), np.array([0])) == [golden("user")]
    read = empty_users(1)
    decode_users([golden("user")], np.array([0]), read)
    assert np.array_equal(read, user_rows())


def test_purchase_rows_keep_their_bytes():
    rows = empty_purchases(1)
    numbered(rows, 3)
    for column in rows[1:]:
        column[0, 3:] = 0
    assert unpack_rows(pack_purchases(rows, np.array([0]))) == [golden("purchases")]
    read = empty_purchases(1)
    decode_purchases([golden("purchases")], np.array([0]), read)
    assert all(np.array_equal(one, other) for one, other in zip(read, rows, strict=True))
    assert encode_purchase_totals(np.array([5, 2])) == golden("purchase_totals")


def test_refusal_rows_keep_their_bytes():
    rows = empty_refusals(1)
    rows.n[0], rows.item[0, :3], rows.second[0, :3] = 3, [5, 6, 7], [10, 2**31, 2**32 - 1]
    assert encode_refusals(rows, np.array([0])) == [golden("refusals")]
    read = empty_refusals(1)
    decode_refusals([golden("refusals")], np.array([0]), read)
    assert all(np.array_equal(one, other) for one, other in zip(read, rows, strict=True))
    assert refused_items(golden("refusals")).tolist() == [5, 6, 7]


def test_a_user_row_says_by_one_bit_that_there_are_refusals():
    rows = user_rows()
    rows["flags"] = FLAG_REFUSES
    (encoded,) = encode_users(rows, np.array([0]))
    assert [k for k, (one, other) in enumerate(zip(encoded, golden("user"), strict=True)) if one != other] == [223]
    read = empty_users(1)
    decode_users([encoded], np.array([0]), read)
    assert np.array_equal(read, rows)


def test_lane_rows_and_vectors_keep_their_bytes():
    scope = lane_rows.ScopeList(np.array([1, 2], np.uint64), np.array([1, 2], np.float32), np.array([3, 4], np.float32))
    assert lane_rows.encode_scope(scope) == golden("scope")
    assert lane_rows.encode_globals(np.arange(lane_rows.SIZE)) == golden("globals")
    country = lane_rows.decode_country(None)
    country.item[0], country.pop[0], country.epoch[0] = 7, [[1, 2], [3, 4]], [5, 6]
    assert lane_rows.encode_country(country._replace(n=1)) == golden("country")
    assert encode_vector(np.array([1, -2], np.float32)) == golden("vector")


GLOBALS = {
    "CURRENT": (8, 144), "EARLIER": (1160, 288), "SESSIONS": (3464, 1), "EVENTS": (3472, 1), "REPEAT": (3480, 4),
    "COUNT": (3512, 1), "POP": (3520, 6), "PRICES": (3568, 64), "FEED": (4080, 1), "DEDUPE": (4088, 1),
    "MAX_TS": (4096, 1), "LATE": (4104, 1), "DUPLICATES": (4112, 1),
}  # fmt: skip
"""Where each field lies in the globals row: its first byte, and how many numbers of 64 bits it has."""


def test_every_field_of_the_globals_row_keeps_its_place():
    for n, (name, (first, size)) in enumerate(GLOBALS.items(), 1):
        totals = np.zeros(lane_rows.SIZE, np.int64)
        at = getattr(lane_rows, name)
        totals[at : at + size] = n
        row = np.frombuffer(lane_rows.encode_globals(totals), np.int64)
        assert row[0] == 1
        assert np.flatnonzero(row[1:] == n).tolist() == list(range(first // 8 - 1, first // 8 - 1 + size)), name
        assert len(row) * 8 == 4136
    ends = [first + 8 * size for first, size in GLOBALS.values()]
    assert ends[:-1] == [first for first, _ in GLOBALS.values()][1:]


def test_positions_keep_their_bytes():
    positions = {"product-views:1": 7, "erasures:0": 2**40, "product-views:0": 0}
    assert encode_positions(positions) == b'{"erasures:0":1099511627776,"product-views:0":0,"product-views:1":7}'


def test_keys_keep_their_bytes():
    prefix = keys.prefix("g7", 3)
    made = [
        keys.user(prefix, 1), keys.item(prefix, 2), keys.vector(prefix, "a1", 3), keys.product(prefix, 4),
        keys.scope(prefix, 5), keys.feed(prefix, 6), keys.dedupe(prefix, 7), keys.lane_globals(prefix),
        keys.positions(prefix), keys.redo(prefix), keys.anchor_ready(prefix), keys.purchases(prefix, 8),
        keys.purchase_totals(prefix), keys.refusals(prefix, 9),
        keys.older_purchases(prefix, 10), keys.owner(prefix), keys.owes_vectors(prefix),
        keys.redo_piece(prefix, "3f", 2), keys.GENERATION, keys.GENERATION_BEFORE, keys.GENERATION_CHANGED,
        keys.generation("g7"), keys.members("g7"), keys.ANCHOR_PUBLISHED, keys.ANCHOR_LIVE, keys.RULES,
        keys.positions(keys.RULES), keys.rules(11), keys.ANCHOR_RUN, keys.ANCHOR_NIGHT,
    ]  # fmt: skip
    assert b"\n".join(made) == (GOLDEN / "keys.txt").read_bytes().rstrip(b"\n")
