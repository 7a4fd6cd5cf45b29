"""Streams of everything a shop sends, as long and as various as laws need them, from a seed.

Visitors with and without a name come in sessions over many months, look, buy, rate, regret, come back; products change;
some messages come late and some twice. Everything goes through Avro and the decoder, as a flow reads it.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from flows.fold.erased_users import EMPTY, Erased
from flows.fold.lane import Changes, Lane
from flows.fold.settings import LaneSettings
from flows.log.contract import RawBatch
from helpers.fold_oracle import Event
from schemas.avro_decoder import USER_EVENT_KINDS, Limits, decode
from schemas.events import PRODUCT_FIELDS, TOPICS, Kind
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from state.store.contract import MemoryStore, Store

SECOND, MINUTE, DAY = 1000, 60_000, 86_400_000
START_MS = 1_700_000_000_000
REGISTRY = FolderRegistry()
Sent = tuple[str, dict[str, Any]]
"""A topic and the record that is sent on it."""
PRODUCTS = ("products", "product-updates")

DIRECT = {
    "click": 4, "add_to_cart": 8, "wishlist": 3, "share": 2, "search": 3, "remove_from_cart": 3, "return": 1,
    "dislike": 2,
}  # fmt: skip
KINDS = {"view": 60, "purchase": 8, "rating": 5, **DIRECT}


@dataclass(frozen=True)
class Shape:
    """How long a stream is and what it is made of."""

    n_events: int = 3000
    n_users: int = 24
    """A quarter of them have no name, only a session."""
    n_items: int = 120
    """Of which the first is looked at before all others: its row of neighbours fills up."""
    days: int = 240
    """From the first session to the last: 15 epochs of the short half-life, more than two of the long one."""
    most_of_a_user: int = 10**9
    products: bool = True
    n_erasures: int = 0
    late: float = 0.05
    """Share of messages that come after some that happened later, within the bound."""
    repeated: float = 0.05
    """Share of messages that come again, at other offsets, within the window of event ids."""
    kinds: dict[str, int] = field(default_factory=lambda: dict(KINDS))


def name_of(record: dict[str, Any]) -> str:
    """Return the visitor of a record as the oracle names it."""
    return record.get("user") or f"session:{record['session']}"


PLAIN = Shape()


def rich_stream(seed: int, shape: Shape = PLAIN) -> list[Sent]:
    """Return what is sent, in the order it is sent; times grow but for what is late."""
    rng = random.Random(seed)
    sent: list[Sent] = []
    for at, user in _sessions(rng, shape):
        ts_ms = at
        items = _walk(rng, shape.n_items)
        for _ in range(min(rng.choice((1, 2, 3, 5, 8, 12)), shape.n_events - len(sent))):
            sent.append(_interaction(rng, shape, len(sent), ts_ms, user, next(items)))
            ts_ms += rng.choice((SECOND, 20 * SECOND, 3 * MINUTE, 29 * MINUTE + 59 * SECOND, 30 * MINUTE))
    sent.sort(key=lambda one: one[1]["ts_ms"])
    sent = _within(sent, shape.most_of_a_user)
    if shape.products:
        sent = _with_products(rng, sent, shape)
    sent = _moved(rng, sent, shape.late, 9 * MINUTE)
    sent = _with_repeats(rng, sent, shape.repeated)
    return _with_erasures(rng, sent, shape.n_erasures)


def _sessions(rng: random.Random, shape: Shape) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (start, visitor) of sessions, more than enough of them, evenly over the days."""
    names = [{"session": f"s{n}"} if n % 4 == 3 else {"user": f"u{n}"} for n in range(shape.n_users)]
    n_sessions = shape.n_events // 5
    for n in range(n_sessions):
        yield START_MS + n * shape.days * DAY // n_sessions + rng.randrange(DAY), rng.choice(names)


def _walk(rng: random.Random, n_items: int) -> Iterator[str]:
    """Yield items as a visitor comes by them: often the first of all, popular ones, and the one before again."""
    before = "i0"
    while True:
        before = rng.choices(
            (before, "i0", f"i{int(rng.paretovariate(0.6)) % n_items}", f"i{rng.randrange(n_items)}"), (2, 2, 4, 3)
        )[0]
        yield before


def _about(rng: random.Random, item: str) -> dict[str, Any]:
    number = int(item[1:])
    facts: dict[str, Any] = {"item": item, "category": f"c{number % 6}", "brand": f"b{number % 7}"}
    return facts | ({"price": 0.5 + number % 40} if rng.random() < 0.8 else {})


def _interaction(
    rng: random.Random, shape: Shape, n: int, ts_ms: int, user: dict[str, str], item: str
) -> Sent:  # fmt: skip
    record: dict[str, Any] = {"event_id": f"e{n}", "ts_ms": ts_ms, **user}
    if rng.random() < 0.7:
        record["country"] = rng.choice(("DE", "FR", "AT"))
    kind = rng.choices(list(shape.kinds), list(shape.kinds.values()))[0]
    if kind == "purchase":
        lines = [{**_about(rng, one), "quantity": float(rng.choice((1, 1, 2)))}
                 for one in {item, *(f"i{rng.randrange(shape.n_items)}" for _ in range(rng.randrange(3)))}]  # fmt: skip
        return "purchases", {**record, "lines": sorted(lines, key=lambda line: line["item"])}
    if kind == "rating":
        return "ratings", {**record, **_about(rng, item), "stars": float(rng.choice((1, 2, 3, 4, 5)))}
    if kind == "view":
        return "product-views", {**record, **_about(rng, item)}
    if kind == "search":
        return "user-events", {**record, "kind": kind, "query": "green tea"}
    return "user-events", {**record, **_about(rng, item), "kind": kind}


def _lines_of(one: Sent) -> int:
    return len(one[1].get("lines", (1,)))


def _within(sent: list[Sent], most: int) -> list[Sent]:
    """Return the stream without what a visitor does beyond so many rows."""
    count: dict[str, int] = {}
    kept = []
    for one in sent:
        user = name_of(one[1])
        count[user] = count.get(user, 0) + _lines_of(one)
        if count[user] <= most:
            kept.append(one)
    return kept


def _with_products(rng: random.Random, sent: list[Sent], shape: Shape) -> list[Sent]:
    """Return the stream with four fifths of the items as products first, and changes of any item in between.

    A change is a whole product, or names some of its fields; the item's category and brand may be among them.
    """
    changed = list(sent)
    for at in sorted(rng.sample(range(len(sent)), len(sent) // 15), reverse=True):
        changed.insert(at, _change(rng, rng.randrange(shape.n_items), sent[at][1]["ts_ms"]))
    return [_product(rng, number, START_MS - DAY) for number in range(shape.n_items) if number % 5] + changed


def _product(rng: random.Random, number: int, ts_ms: int) -> Sent:
    facts = {"item": f"i{number}", "category": f"c{rng.randrange(6)}", "brand": f"b{rng.randrange(7)}", "ts_ms": ts_ms}
    title, price = f"Item {number}, {rng.randrange(100)}", float(rng.randrange(90))
    own = {"title": title, "price": price, "stock": rng.randrange(3), "attributes": {"at": str(ts_ms)}}
    return "products", {**facts, **own}


def _change(rng: random.Random, number: int, ts_ms: int) -> Sent:
    topic, record = _product(rng, number, ts_ms)
    how = rng.choices(("whole", "merge", "replace", "gone"), (3, 8, 1, 1))[0]
    if how == "whole":
        return topic, record
    update: dict[str, Any] = {"item": record["item"], "ts_ms": ts_ms, "change": how}
    if how == "merge":
        named = rng.sample(PRODUCT_FIELDS[:5], rng.randrange(4))
        update |= {name: record[name] for name in named}
        update["attributes"] = {"at": rng.choice((None, str(ts_ms))), f"a{number % 3}": "yes"} if number % 2 else {}
        update["cleared"] = [
            name for name in ("category", "stock", "attributes") if name not in named and not rng.randrange(5)
        ]
    elif how == "replace":
        update |= {name: record[name] for name in ("title", "category", "stock", "attributes")}
    return "product-updates", update


def products_of(sent: Iterable[Sent]) -> dict[str, dict[str, Any]]:
    """Return what is known of each product in the end, field by field; of one that is gone `gone` too.

    Times of products grow in the stream, so that what comes later counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for topic, record in sent:
        if topic not in PRODUCTS:
            continue
        given = {name: record[name] for name in PRODUCT_FIELDS if record.get(name) is not None}
        change = record.get("change", "whole")
        known = found.setdefault(record["item"], {})
        if change != "merge":
            known.clear()
        if change == "gone":
            known["gone"] = True
            continue
        for name in record.get("cleared", ()):
            known.pop(name, None)
        attributes = {**known.get("attributes", {}), **given.pop("attributes", {})}
        known |= {**given, "attributes": {name: text for name, text in attributes.items() if text is not None}}
        if "title" in given:
            known.pop("gone", None)
    return found


def _moved(rng: random.Random, sent: list[Sent], share: float, most_ms: int) -> list[Sent]:
    """Return the stream with some messages behind such as happened up to `most_ms` later."""
    is_late = [topic not in PRODUCTS and rng.random() < share for topic, _ in sent]
    late_ms = [rng.randrange(most_ms) if late else 0 for late in is_late]
    arrival = [record["ts_ms"] + more for (_, record), more in zip(sent, late_ms, strict=True)]
    return [sent[k] for k in sorted(range(len(sent)), key=lambda k: (arrival[k], k))]


def _with_repeats(rng: random.Random, sent: list[Sent], share: float) -> list[Sent]:
    """Return the stream with some messages once more, up to 300 places behind; products are not repeated."""
    places = [(float(k), one) for k, one in enumerate(sent)]
    again = [(k + rng.uniform(0.5, 300), one) for k, one in enumerate(sent)
             if one[0] not in PRODUCTS and rng.random() < share]  # fmt: skip
    return [one for _, one in sorted(places + again, key=lambda pair: pair[0])]


def _with_erasures(rng: random.Random, sent: list[Sent], n: int) -> list[Sent]:
    changed = list(sent)
    names = sorted({record["user"] for _, record in sent if record.get("user")})
    for k, user in enumerate(rng.sample(names, n)):
        at = rng.randrange(len(changed) // 3, len(changed))
        record = {"event_id": f"erase-{k}", "ts_ms": changed[at][1]["ts_ms"], "user": user}
        changed.insert(at, ("erasures", record))
    return changed


def events_of(sent: Iterable[Sent]) -> list[Event]:
    """Return the interactions as the oracle has them, one for each line of an order, each event once."""
    kinds = {"product-views": Kind.VIEW, "purchases": Kind.PURCHASE, "ratings": Kind.RATING}
    seen, found = set(), []
    for topic, record in sent:
        if topic in (*PRODUCTS, "erasures", "impressions") or (topic, record["event_id"]) in seen:
            continue
        seen.add((topic, record["event_id"]))
        kind = kinds.get(topic) or Kind(USER_EVENT_KINDS[record["kind"]])
        for line in record.get("lines", (record,)):
            found.append(
                Event(
                    name_of(record), line.get("item", ""), record["ts_ms"], kind, record["event_id"],
                    line.get("price", float("nan")), line.get("category", ""), line.get("brand", ""),
                    record.get("country", ""), line.get("quantity", record.get("stars", 1.0)),
                )
            )  # fmt: skip
    return found


class Delivery:
    """What is sent as a log gives it back: each topic has one partition, whose offsets grow."""

    def __init__(self, sent: list[Sent]) -> None:
        self.sent = sent
        self._values = [encode(topic, record, REGISTRY) for topic, record in sent]
        self._counts = np.zeros((len(sent) + 1, len(TOPICS)), np.int64)
        for k, (topic, _) in enumerate(sent):
            self._counts[k + 1] = self._counts[k]
            self._counts[k + 1, TOPICS.index(topic)] += 1

    def __len__(self) -> int:
        return len(self.sent)

    def batch(self, first: int, last: int) -> RawBatch:
        """Return messages `first` to before `last` as one batch."""
        streams = tuple(f"{topic}:0" for topic in TOPICS)
        stream = np.array([TOPICS.index(topic) for topic, _ in self.sent[first:last]], np.int32)
        values = self._values[first:last]
        return RawBatch(
            streams, stream, self._counts[np.arange(first, last), stream],
            np.frombuffer(b"".join(values), np.uint8), np.cumsum([0, *map(len, values)]).astype(np.int64),
            dict(zip(streams, self._counts[first].tolist(), strict=True)),
            dict(zip(streams, self._counts[last].tolist(), strict=True)),
        )  # fmt: skip

    def give(self, lane: Lane, store: Store, first: int, last: int) -> Changes:
        """Fold messages `first` to before `last` as one batch, and commit; nothing of them may be refused."""
        raw = self.batch(first, last)
        decoded = decode(raw, REGISTRY, START_MS + 10_000 * DAY, Limits())
        assert decoded.bad == []
        changes = lane.apply(decoded, raw)
        store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
        return changes


def fold_stream(
    sent: list[Sent], settings: LaneSettings, cuts: Iterable[int] = (), crash: bool = False, erased: Erased = EMPTY,
    store: MemoryStore | None = None,
) -> MemoryStore:  # fmt: skip
    """Return the rows of a stream folded by every lane of `settings` in batches that end at `cuts`.

    `crash`: by a lane made anew for each batch, which knows no more than what was committed.
    """
    store = store or MemoryStore()
    delivery = Delivery(sent)
    for number in range(settings.n_lanes):
        lane = Lane(settings, store, "g1", number, erased)
        lane.open()
        for first, last in pairwise(sorted({0, *cuts, len(sent)})):
            if crash:
                lane = Lane(settings, store, "g1", number, erased)
                lane.open()
            delivery.give(lane, store, first, last)
    return store
