"""A seeded stream of events for the torture: every user, item and time follows from the seed."""

import random
from typing import Any

from flows.log.contract import Message
from schemas.json_events import encode
from schemas.registry import FolderRegistry

N_USERS, N_ITEMS = 1_000, 40
"""Fewer items than a row has neighbours: which one a full row gives up depends on how partitions interleave."""
LEAVING = [f"u{number}" for number in range(50)]
"""Users who do nothing in the second half of a stream, and are erased there."""
START_MS = 1_750_000_000_000
STEP_MS = 1_000
REGISTRY = FolderRegistry()
CHANGES = ("whole", "merge", "merge", "merge", "replace", "gone")
"""What becomes of products that are known, as often as it is named."""
TOPIC_OF = {"view": "product-views", "cart": "user-events", "buy": "purchases"}


def _message(n: int, rng: random.Random, ts_ms: int, all_act: bool) -> Message:
    number, item = rng.randrange(N_USERS), int(rng.paretovariate(0.7)) % N_ITEMS
    if not all_act and number < len(LEAVING):
        number += len(LEAVING)
    user = f"u{number}"
    name, price = f"i{item}", 1.0 + item
    facts: dict[str, Any] = {"event_id": f"e{n}", "ts_ms": ts_ms, "user": user}
    kind = rng.choices(["view", "cart", "buy"], [6, 2, 1])[0]
    about = {"item": name, "category": f"c{item % 5}", "brand": f"b{item % 7}", "country": "DE", "price": price}
    if kind == "view":
        record = {**facts, **about}
    elif kind == "cart":
        record = {**facts, **about, "kind": "add_to_cart"}
    else:
        record = {**facts, "country": "DE", "lines": [{**about, "quantity": 1.0}]}
        del record["lines"][0]["country"]
    topic = TOPIC_OF[kind]
    return Message(topic, user.encode(), encode(topic, record, REGISTRY), ts_ms)


def _product(j: int, rng: random.Random, ts_ms: int) -> Message:
    """Return a change of a product: its first one is a whole product, others are one of CHANGES.

    What a visitor's profile makes of an event depends on whether a change of category or brand that another partition
    brings comes before or behind it. So these stay those of the item's events, and only items without events go.
    """
    item = j % N_ITEMS
    about: dict[str, Any] = {"title": f"Item {rng.randrange(9)}", "category": f"c{item % 5}", "brand": f"b{item % 7}"}
    how = "whole" if j < N_ITEMS else rng.choice(CHANGES)
    name = f"gone{item}" if how == "gone" else f"i{item}"
    facts = {"item": name, "ts_ms": ts_ms}
    if how == "whole":
        record = {**facts, **about, "price": float(rng.randrange(90)), "stock": rng.randrange(9)}
        return Message("products", name.encode(), encode("products", record, REGISTRY), ts_ms)
    record = {**facts, "change": how, **(about if how == "replace" else {})}
    if how == "merge":
        record |= rng.choice(({"stock": 0}, {"price": 3.5, "stock": j}, {"title": f"New {j}"}, {"cleared": ["stock"]}))
        record["attributes"] = rng.choice(({}, {"colour": f"c{j}"}, {"colour": None, "size": "l"}))
    value = encode("product-updates", record, REGISTRY)
    return Message("product-updates", name.encode(), value, ts_ms)


def _with_products(messages: list[Message], rng: random.Random, n: int) -> list[Message]:
    """Return the messages behind a catalogue, with changes of it evenly between them, whose times grow."""
    catalogue = [_product(j, rng, START_MS - N_ITEMS + j) for j in range(N_ITEMS)]
    n_changes = max(n // 50 - N_ITEMS, N_ITEMS)
    changes = [
        _product(N_ITEMS + j, rng, START_MS + (j + 1) * n * STEP_MS // (n_changes + 1)) for j in range(n_changes)
    ]
    found = list(messages)
    for j in reversed(range(n_changes)):
        found.insert((j + 1) * len(messages) // (n_changes + 1), changes[j])
    return catalogue + found


def make_stream(seed: int, n: int, how: str = "plain") -> list[Message]:
    """Return `n` events as messages, in the order they are sent.

    They are `plain`, each `thrice`, `shuffled` within the lateness bound, or some `late` beyond it. Each time LEAVING
    are erased, one by one, long after their last event. No late event is theirs. Between them products change.
    """
    rng = random.Random(seed)
    times = [START_MS + k * STEP_MS for k in range(n)]
    messages = [_message(k, rng, times[k], k < n // 2) for k in range(n)]
    for j, user in enumerate(LEAVING):
        at = n * 6 // 10 + j * n // 3 // len(LEAVING)
        record = {"event_id": f"erase-{user}", "ts_ms": times[at], "user": user}
        messages.insert(at + j, Message("erasures", b"", encode("erasures", record, REGISTRY), times[at]))
    if how == "thrice":
        copies = [(k + rng.uniform(0, 40), message) for k, message in enumerate(messages) for _ in range(3)]
        messages = [message for _, message in sorted(copies, key=lambda pair: pair[0])]
    elif how == "shuffled":
        moved = [(k + rng.uniform(0, 120), message) for k, message in enumerate(messages)]
        messages = [message for _, message in sorted(moved, key=lambda pair: pair[0])]
    elif how == "late":
        staying = [k for k in range(n // 3) if (messages[k].key or b"").decode() not in LEAVING]
        held = {k for k in staying if rng.random() < 0.05}
        messages = [m for k, m in enumerate(messages) if k not in held] + [messages[k] for k in sorted(held)]
    return _with_products(messages, random.Random(seed + 1), n)
