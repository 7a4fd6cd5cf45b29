"""Whatever goes wrong with one message: it alone is a dead letter, and the rows are those of a log without it."""

import numpy as np
import pytest

from flows.fold import lane as lane_module
from flows.fold import products, purchases, top_lists, user_vectors
from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import Message
from flows.log.dead_letters import DeadLetters
from flows.log.sqlite_log import SqliteLog
from flows.runner import Intake, Runner, TooManyBadMessages
from schemas import avro_decoder
from schemas.avro_decoder import Limits
from schemas.ids import hash_id, hash_visitor
from schemas.json_events import encode, event_from_json
from schemas.registry import FolderRegistry
from state.anchor import Anchor
from state.rows import keys
from state.store.contract import MemoryStore, StoreUnavailable

T0 = 1_700_000_000_000
REGISTRY = FolderRegistry()
POISON = "poison"


def message(n, **event):
    named = {} if event["type"] == "product" else {"event_id": f"e{n}"}
    topic, record, key = event_from_json({"ts_ms": T0 + n * 1000, **named, **event}, T0)
    return Message(topic, key, encode(topic, record, REGISTRY), T0 + n)


def log_of(n, poison, folder):
    """A log of good messages of every kind, with a message of `poison` in each of several places."""
    log = SqliteLog(folder / "log.sqlite")
    # First, since what a batch has of products is folded before its events.
    log.append([message(k, type="product", item=f"i{k}", title=f"t{k}", category=f"c{k % 3}") for k in range(7)])
    for k in range(n):
        user, item = f"u{k % 5}", f"i{k * k % 7}"
        log.append([
            message(10 * k + 1, type="view", user=user, item=item, category=f"c{k % 3}", country="DE"),
            message(10 * k + 2, type="purchase", user=user, item=item, price=2.0),
            message(10 * k + 3, type="add_to_cart", user=f"u{(k + 1) % 5}", item=item),
        ])  # fmt: skip
        if poison and k in (3, 4, n - 1):
            log.append([message(10 * k + 4, **poison)])
    log.append([message(10 * n, type="erasure", user="u3")])
    return log


def fold_all(log, size, max_bad=10_000, n_lanes=1):
    """Fold the log in batches of `size`; return (rows, reasons of letters, positions)."""
    store = MemoryStore()
    ids = np.sort(np.array([hash_id(item) for item in ("i0", "i1", "i2", POISON)], np.uint64))
    lanes = [
        Lane(LaneSettings(n_lanes=n_lanes, max_cached_users=500, max_cached_items=500, dedupe_window=2048), store, "g",
             lane) for lane in range(n_lanes)
    ]  # fmt: skip
    for lane in lanes:
        one = np.eye(4, dtype=np.float32)
        lane.use_anchors(Anchor("a", ["w", "x", "y", "z"], ids, one, one, 1.0, np.ones(32)))
    letters = []

    class Letters(DeadLetters):
        def __init__(self):
            pass

        def write(self, raw, bad, now_ms):
            letters.extend((one.reason, one.detail, raw.message(one.message)) for one in bad)

    runner = Runner(lanes, store, Intake(REGISTRY, Limits(), Letters(), max_bad), now_ms=lambda: T0 + 10**7)
    positions = runner.open()
    while (raw := log.read(positions, size, 0)) is not None:
        runner.fold(raw)
        positions = raw.after
    runner.close()
    rows = {}
    for lane in lanes:
        for found in store.scan(lane.prefix):
            rows |= dict(zip(found, store.read(list(found)), strict=True))
    return rows, letters, positions


VIEW = {"type": "view", "user": "u1", "item": POISON}
PRODUCT = {"type": "product", "item": POISON, "title": "bad"}
PURCHASE = {"type": "purchase", "user": "u1", "item": POISON}
ERASURE = {"type": "erasure", "user": POISON}
ITEM = hash_id(POISON)


def in_rows(events):
    return bool((events["item"] == ITEM).any())


def fails_if(bad):
    def replaced(original):
        def call(*args, **more):
            if bad(*args):
                raise RuntimeError("planted")
            return original(*args, **more)

        return call

    return replaced


STAGES = {
    "kernel": (VIEW, avro_decoder, "read_messages", lambda data, bounds, messages, *_: any(
        POISON.encode() in data[bounds[m] : bounds[m + 1]].tobytes() for m in messages), "decode_failed"),
    "record": (PRODUCT, avro_decoder, "read_body", lambda resolved, body: POISON.encode() in body, "decode_failed"),
    "validation": (VIEW, avro_decoder, "refuse", lambda rows, *_: in_rows(rows), "decode_failed"),
    "product": (PRODUCT, products, "encode_product", lambda item, *_: item == POISON, "fold_failed"),
    "events": (VIEW, lane_module, "fold_events", lambda events, *_: in_rows(events), "fold_failed"),
    "purchases": (PURCHASE, purchases.PurchaseTable, "fold", lambda self, rows: in_rows(rows), "fold_failed"),
    "countries": (VIEW, top_lists.ScopeFold, "count_countries", lambda self, rows: in_rows(rows), "fold_failed"),
    "scopes": (VIEW, top_lists.ScopeFold, "fold", lambda self, items, rows: ITEM in items.ids_of(items.changed()),
               "fold_failed"),
    "vectors": (VIEW, user_vectors, "vectors_for", lambda rows, slots, anchor: bool(
        (rows["item"][slots] == ITEM).any()), "fold_failed"),
    "erasure": (ERASURE, lane_module.Lane, "_take_back", lambda self, user: user == hash_visitor(POISON, ""),
                "fold_failed"),
}  # fmt: skip


@pytest.mark.parametrize("n_lanes", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_an_exception_in_any_stage_makes_that_message_a_letter_and_its_neighbours_are_folded(
    stage, n_lanes, tmp_path, monkeypatch
):
    poison, where, name, bad, reason = STAGES[stage]
    good = log_of(12, None, tmp_path / "good")
    expected, letters, _ = fold_all(good, 1000, n_lanes=n_lanes)
    assert not letters
    log = log_of(12, poison, tmp_path / "bad")
    monkeypatch.setattr(where, name, fails_if(bad)(getattr(where, name)))
    for size in (1000, 7):
        rows, letters, positions = fold_all(log, size, n_lanes=n_lanes)
        assert [reason for reason, _, _ in letters] == [reason] * 3
        assert all("planted" in detail and POISON.encode() in message.value for _, detail, message in letters)
        assert positions == log.end()

        places = {keys.positions(keys.prefix("g", lane)) for lane in range(n_lanes)}
        assert rows.keys() == expected.keys()
        assert {key for key, value in rows.items() if value != expected[key]} <= places


def test_a_bug_that_hits_every_message_stops_the_flow(tmp_path, monkeypatch):
    log = log_of(12, None, tmp_path)
    monkeypatch.setattr(lane_module.Lane, "_fold", fails_if(lambda self, events, _: len(events) > 0)(Lane._fold))
    monkeypatch.setattr(products, "encode_product", fails_if(lambda *_: True)(products.encode_product))
    with pytest.raises(TooManyBadMessages, match="the last 21 messages"):
        fold_all(log, 1000, max_bad=20)


def test_a_store_out_of_reach_is_no_messages_failure(tmp_path, monkeypatch):
    log = log_of(3, None, tmp_path)

    def away(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(lane_module.Lane, "_fold", away)
    with pytest.raises(StoreUnavailable):
        fold_all(log, 1000)
