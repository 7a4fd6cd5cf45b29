"""Laws 1, 3, 4, 5 and 6 on long, rich streams: months, full rows, every kind of event, repeats, late ones, erasures."""

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson
import pytest
from helpers.erased import the_same
from helpers.fold_oracle import Expected, decayed, latest_first, session_before, weight_of
from helpers.lanes import PREFIX, globals_of, item_row
from helpers.rich_streams import (
    DAY,
    PRODUCTS,
    START_MS,
    Delivery,
    Shape,
    events_of,
    fold_stream,
    name_of,
    products_of,
    rich_stream,
)

from flows.fold.erased_users import Erased
from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from schemas.events import PRODUCT_FIELDS, Kind
from schemas.ids import hash_id, hash_visitor
from state.rows import keys, lane_rows
from state.rows.decay import EPOCH_HALF_LIVES, forward_weight, value_at
from state.rows.item_rows import decode_items, empty_items
from state.rows.user_rows import decode_users, empty_users

SETTINGS = LaneSettings(max_cached_users=64, max_cached_items=256, dedupe_window=2048)
PATIENT = replace(SETTINGS, lateness_ms=60 * 60_000)
FULL = Shape()
ROOMY = Shape(n_events=1100, n_items=45, most_of_a_user=50, products=False)
"""No row of neighbours and no history is full, and no product changes: rows are the same in any order of events."""
LAST_MS = START_MS + 245 * DAY
SEEDS = (1, 2)


def pytest_generate_tests(metafunc):
    """Give tests their seeds: always the same ones, and by night fresh ones, from the seed of hypothesis."""
    if "seed" in metafunc.fixturenames:
        night = metafunc.config.getoption("hypothesis_seed", None)
        metafunc.parametrize("seed", SEEDS if night is None else range(int(night), int(night) + 10))


def hash_of(name):
    """Return the hash of a visitor by the name that the oracle has."""
    session = name.partition("session:")[2]
    return hash_visitor(None, session) if session else hash_id(name)


def user_row(store, name, prefix=PREFIX):
    rows = empty_users(1)
    assert decode_users(store.read([keys.user(prefix, hash_of(name))]), np.array([0]), rows).all(), name
    return rows[0]


def popularity_of(row, which, half_life_ms):
    return value_at(int(row["pop_epoch"][which]), *row["pop"][which].tolist(), half_life_ms, LAST_MS)


def some_cuts(seed, n, how_many=8):
    return random.Random(seed).sample(range(1, n), how_many)


def rows_of(store, *left_out):
    """Return the rows, but none of the lane's own that are left out."""
    return {key: row for key, row in store.rows.items() if key not in [name(PREFIX) for name in left_out]}


def test_the_streams_hold_what_the_laws_need():
    sent = rich_stream(1)
    store = fold_stream(sent, SETTINGS)
    totals, events = globals_of(store), events_of(sent)
    full = [item for item in range(FULL.n_items) if item_row(store, f"i{item}")["n"][0] == 50]
    assert len(full) >= 3
    assert totals[lane_rows.DEDUPE] > SETTINGS.dedupe_window
    assert totals[lane_rows.DUPLICATES] > 100
    times = [event.ts_ms for event in events]
    spans = {half: (max(times) - min(times)) / (EPOCH_HALF_LIVES * half) for half in
             (SETTINGS.short_half_life_ms, SETTINGS.long_half_life_ms)}  # fmt: skip
    assert min(spans.values()) > 2
    assert max(spans.values()) > 10
    assert {event.kind for event in events} == set(Kind)
    assert sum(event.user.startswith("session:") for event in events) > 100
    assert any(b < a for a, b in pairwise(times)), "some come late"
    assert min(Counter(topic for topic, _ in sent)[topic] for topic in PRODUCTS) > 100
    assert max(Counter(event.user for event in events).values()) > 100, "histories are full"


@pytest.mark.parametrize("crash", [False, True])
def test_law_1_a_stream_cut_anywhere_gives_the_same_bytes(seed, crash):
    sent = rich_stream(seed, replace(FULL, n_erasures=4))
    cuts = some_cuts(seed, len(sent))
    assert rows_of(fold_stream(sent, SETTINGS, cuts, crash)) == rows_of(fold_stream(sent, SETTINGS))


def test_law_1_a_small_cache_gives_the_same_bytes():
    sent = rich_stream(3, replace(FULL, n_erasures=2, n_users=60))
    small = replace(SETTINGS, max_cached_users=40, max_cached_items=130)
    assert rows_of(fold_stream(sent, small, range(0, len(sent), 9))) == rows_of(fold_stream(sent, SETTINGS))


def test_law_3_users_may_interleave_in_any_way(seed):
    sent = rich_stream(seed, replace(ROOMY, repeated=0.0))
    own = defaultdict(list)
    for one in sent:
        own[name_of(one[1])].append(one)
    rng, mixed = random.Random(seed), []
    turns = [name for name, messages in own.items() for _ in messages]
    rng.shuffle(turns)
    for name in turns:
        mixed.append(own[name].pop(0))
    in_order = (b"d:", b"f:")  # the window of event ids and the feed list what came in the order it came
    kept = [{key: row for key, row in fold_stream(stream, PATIENT).rows.items() if key[len(PREFIX) :][:2]
             not in in_order} for stream in (sent, mixed)]  # fmt: skip
    assert kept[0] == kept[1]


@pytest.mark.parametrize("n_lanes", [2, 5])
@pytest.mark.parametrize("products", [False, True])
def test_law_3_rows_of_lanes_add_up_to_those_of_one(n_lanes, products):
    sent = rich_stream(4, replace(ROOMY, products=products))
    one = fold_stream(sent, PATIENT)
    many = fold_stream(sent, replace(PATIENT, n_lanes=n_lanes))
    prefixes = [keys.prefix("g1", lane) for lane in range(n_lanes)]
    for name in {event.user for event in events_of(sent)}:
        prefix = prefixes[hash_of(name) % n_lanes]
        for key in (keys.user, keys.purchases, keys.refusals):
            assert many.rows.get(key(prefix, hash_of(name))) == one.rows.get(key(PREFIX, hash_of(name))), (name, key)
    for number in range(ROOMY.n_items):
        item = hash_id(f"i{number}")
        product = keys.product(prefixes[item % n_lanes], item)
        assert many.rows.get(product) == one.rows.get(keys.product(PREFIX, item))
        parts, whole = empty_items(n_lanes), item_row(one, f"i{number}")[0]
        decode_items(many.read([keys.item(prefix, item) for prefix in prefixes]), np.arange(n_lanes), parts)
        for column in ("support", "count", "total", "repeat", "kinds"):
            assert np.array_equal(parts[column].sum(axis=0), whole[column]), (number, column)
        pairs = Counter()
        for part in parts:
            for j in range(int(part["n"])):
                for kind in range(3):
                    pairs[int(part["neighbour"][j]), kind] += int(part["weight"][kind, j])
        assert +pairs == +Counter({(int(whole["neighbour"][j]), kind): int(whole["weight"][kind, j])
                                   for j in range(int(whole["n"])) for kind in range(3)})  # fmt: skip
        for h, half_life in enumerate((PATIENT.short_half_life_ms, PATIENT.long_half_life_ms)):
            found = sum(
                value_at(int(part["pop_epoch"][h]), *part["pop"][h].tolist(), half_life, LAST_MS) for part in parts
            )
            wanted = value_at(int(whole["pop_epoch"][h]), *whole["pop"][h].tolist(), half_life, LAST_MS)
            assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("first", [0, 1500, -1])
def test_law_4_a_suffix_delivered_again_changes_nothing(first):
    sent = rich_stream(5, replace(FULL, n_erasures=2))
    store = fold_stream(sent, SETTINGS)
    before = dict(store.rows)
    lane = Lane(SETTINGS, store, "g1")
    lane.open()
    Delivery(sent).give(lane, store, first % len(sent), len(sent))
    assert store.rows == before


@pytest.mark.parametrize("n", [1023, 1024, 1025, 1900, 2048, 3000])
@pytest.mark.parametrize("crash", [False, True])
def test_law_4_events_of_half_a_window_sent_again_are_dropped_after_a_restart_too(n, crash):
    shape = replace(FULL, n_events=n, repeated=0.0, products=False)
    sent = rich_stream(6, shape)
    half = SETTINGS.dedupe_window // 2
    again = sent + sent[-half:]
    once = fold_stream(sent, SETTINGS)
    twice = fold_stream(again, SETTINGS, [len(sent)], crash)
    n_rows = sum(len(record.get("lines", (1,))) for _, record in sent[-half:])
    assert globals_of(twice)[lane_rows.DUPLICATES] == n_rows
    assert rows_of(twice, keys.positions, keys.lane_globals) == rows_of(once, keys.positions, keys.lane_globals)


def test_law_5_an_erased_user_was_never_there(seed):
    sent = rich_stream(seed, replace(ROOMY, repeated=0.0))
    gone = Counter(name_of(record) for _, record in sent if record.get("user")).most_common(3)
    others = [one for one in sent if name_of(one[1]) not in dict(gone)]
    erasures = [("erasures", {"event_id": name, "ts_ms": LAST_MS, "user": name}) for name, _ in gone]
    store, never = fold_stream(sent + erasures, PATIENT, some_cuts(seed, len(sent))), fold_stream(others, PATIENT)
    items = {event.item for event in events_of(others)} - {""}
    the_same(store, never, items, LAST_MS, within=1e-3)
    for name, _ in gone:
        left = [key(PREFIX, hash_id(name)) for key in (keys.user, keys.purchases, keys.refusals, keys.older_purchases)]
        assert store.read(left) == [None] * 4


def test_law_5_neighbours_cut_from_a_full_row_do_not_come_back_and_nothing_else_differs():
    shape = replace(FULL, most_of_a_user=50, n_users=60, n_events=2400, repeated=0.0, products=False)
    sent = rich_stream(7, shape)
    gone = "u0"
    others = [one for one in sent if name_of(one[1]) != gone]
    erasure = [("erasures", {"event_id": "x", "ts_ms": LAST_MS, "user": gone})]
    store, never = fold_stream(sent + erasure, PATIENT), fold_stream(others, PATIENT)
    missing, n_full = 0, 0
    for number in {int(event.item[1:]) for event in events_of(others) if event.item}:
        rows, wanted = ({int(one["neighbour"][j]): one["weight"][:, j].tolist() for j in range(int(one["n"]))}
                        for one in (item_row(store, f"i{number}")[0], item_row(never, f"i{number}")[0]))  # fmt: skip
        n_full += len(wanted) == 50
        if len(wanted) < 50:
            assert rows == wanted, number
        missing += len(wanted.keys() - rows.keys())
    assert n_full >= 3
    assert 0 < missing < 10


def test_law_5_who_is_known_to_be_erased_was_never_there_byte_for_byte():
    sent = rich_stream(8)
    last = {name: max(record["ts_ms"] for _, record in sent if record.get("user") == name) for name in ("u0", "u4")}
    last["u5"] = START_MS + 120 * DAY  # and came back
    kept = [one for one in sent if one[0] in PRODUCTS or one[1]["ts_ms"] > last.get(name_of(one[1]), 0)]
    erased = Erased.of({hash_id(name): at for name, at in last.items()})
    found = fold_stream(sent, SETTINGS, some_cuts(8, len(sent)), erased=erased)
    assert rows_of(found, keys.positions) == rows_of(fold_stream(kept, SETTINGS), keys.positions)
    assert len(kept) < len(sent) - 200


@pytest.mark.parametrize("n_lanes", [1, 4])
def test_law_6_products_are_what_their_changes_make_of_them(seed, n_lanes):
    sent = rich_stream(seed)
    store = fold_stream(sent, replace(SETTINGS, n_lanes=n_lanes), some_cuts(seed, len(sent)), crash=True)
    for item, known in products_of(sent).items():
        prefix = keys.prefix("g1", hash_id(item) % n_lanes)
        row = orjson.loads(store.rows[keys.product(prefix, hash_id(item))])
        found = {name: value for name, value in row.items() if name in (*PRODUCT_FIELDS, "gone") and value is not None}
        assert {"attributes": {}, **found} == {"attributes": {}, **known}, item
        facts = item_row(store, item, prefix)[0]
        if "gone" not in known:
            assert facts["brand"] == hash_id(known.get("brand", "")) or "brand" not in known
            assert facts["category"] == hash_id(known.get("category", "")) or "category" not in known


def sums_of(events, half_life_ms):
    """Return the newest epoch of a decayed sum, what its events add, and what those of the epoch before add."""
    sums = Counter()
    for event in events:
        amount = int(forward_weight(weight_of(event), event.ts_ms, half_life_ms))
        sums[event.ts_ms // (EPOCH_HALF_LIVES * half_life_ms)] += amount
    newest = max(sums)
    return newest, sums[newest], sums[newest - 1]


def test_law_6_rows_hold_what_the_definitions_say_over_many_epochs(seed):
    sent = rich_stream(seed, ROOMY)
    events = events_of(sent)
    store, expected = fold_stream(sent, PATIENT), Expected(events, PATIENT)
    totals = globals_of(store)
    assert totals[lane_rows.SESSIONS] == expected.sessions
    assert np.array_equal(totals[: 2 * 72].reshape(72, 2), expected.current)
    assert np.array_equal(totals[2 * 72 : 2 * 216].reshape(144, 2), expected.earlier)
    assert totals[lane_rows.DUPLICATES] == sum(len(r.get("lines", (1,))) for _, r in sent) - len(events)
    by_item = defaultdict(list)
    for event in events:
        by_item[event.item].append(event)
    for item in by_item.keys() - {""}:
        row = item_row(store, item)[0]
        found = {int(row["neighbour"][j]): row["weight"][:, j].tolist() for j in range(int(row["n"]))}
        assert found == {hash_id(other): counters for other, counters in expected.pairs[item].items()}
        assert row["support"] == expected.support[item]
        assert row["repeat"].tolist() == expected.repeat[item]
        assert row["first_ms"] == min(event.ts_ms for event in by_item[item])
        kinds = Counter({Kind.CLICK: Kind.VIEW}.get(event.kind, event.kind) for event in by_item[item])
        assert row["kinds"].tolist() == [kinds[Kind.VIEW], kinds[Kind.ADD_TO_CART], kinds[Kind.PURCHASE]]
        for h, half_life in enumerate((PATIENT.short_half_life_ms, PATIENT.long_half_life_ms)):
            assert (int(row["pop_epoch"][h]), *row["pop"][h].tolist()) == sums_of(by_item[item], half_life)
            wanted = decayed(by_item[item], half_life, LAST_MS)
            assert popularity_of(row, h, half_life) == pytest.approx(wanted, abs=1e-3)
    for name, own in expected.histories.items():
        row, every = user_row(store, name), [event for event in events if event.user == name]
        n = int(row["n"])
        assert row["item"][:n].tolist() == [hash_id(event.item) for event in own]
        assert row["kind"][:n].tolist() == [
            event.kind | (int(event.value) << 5 if event.kind == Kind.RATING else 0) for event in own
        ]
        assert (row["first_ms"], row["last_ms"]) == (min(event.ts_ms for event in every), own[-1].ts_ms)
        prices = [round(1000 * math.log(np.float32(event.price))) for event in every if event.price > 0]
        assert [row["price_n"], row["price_sum"], row["price_square"]] == [
            len(prices), sum(prices), sum(price * price for price in prices)
        ]  # fmt: skip
        kinds = Counter({Kind.CLICK: Kind.VIEW}.get(event.kind, event.kind) for event in every)
        counted = (Kind.VIEW, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.SEARCH)
        assert row["counts"].tolist() == [kinds[kind] for kind in counted]
        hours = Counter(event.ts_ms // 3_600_000 % 24 for event in every)
        assert row["hours"].tolist() == [hours[hour] for hour in range(24)]


def pairs_in_order(events, settings):
    """Return neighbours by item, folded one event at a time: a full row gives up its lightest, of equals the first.

    For streams without late events, whose rows may be full.
    """
    rows, own = defaultdict(dict), defaultdict(list)

    def add(item, other, kind, amount):
        row = rows[item]
        if other not in row:
            if len(row) == settings.neighbours:
                weights = {one: 5 * (adj + far) + 4 * bwd for one, (adj, far, bwd) in row.items()}
                del row[min(weights, key=lambda one: (weights[one], hash_id(one)))]
            row[other] = [0, 0, 0]
        row[other][kind] += amount

    for event in events:
        if event.item:
            own[event.user].append(event)
            if event.kind < Kind.REMOVE_FROM_CART:
                history = own[event.user]
                session = session_before(history, len(history) - 1, settings.session_gap_ms)
                others = [one for one in latest_first(session) if one != event.item]
                for rank, other in enumerate(others[: settings.pair_window]):
                    amount = round(100 * math.exp(-rank / 1.8))
                    add(other, event.item, 0 if rank == 0 else 1, amount)
                    add(event.item, other, 2, amount)
    return rows


def test_law_6_full_rows_hold_what_the_slow_fold_says(seed):
    sent = rich_stream(seed, replace(FULL, late=0.0))
    store = fold_stream(sent, SETTINGS, some_cuts(seed, len(sent)), crash=True)
    expected = pairs_in_order(events_of(sent), SETTINGS)
    assert sum(len(row) == 50 for row in expected.values()) >= 1
    for item, neighbours in expected.items():
        row = item_row(store, item)[0]
        found = {int(row["neighbour"][j]): row["weight"][:, j].tolist() for j in range(int(row["n"]))}
        assert found == {hash_id(other): counters for other, counters in neighbours.items()}, item
