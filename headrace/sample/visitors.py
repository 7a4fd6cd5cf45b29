"""What the visitors of the sample shop did in two months: tastes, sessions, orders, and what they buy again."""

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from headrace.sample.catalogue import CATEGORY_OF, ITEMS, SHOP, SampleProduct

DAYS = 60
DAY_MS, MINUTE_MS = 86_400_000, 60_000
N_USERS, N_ANONYMOUS = 170, 30
N_FAVOURITES = 12
NAMES = ("ann", "ben", "cara", "dan", "eva", "finn", "gina", "hugo", "ida", "jan", "kim", "leo", "mia", "nils", "olga",
         "paul", "quinn", "rosa", "sam", "tess", "umar", "vera", "will", "xenia", "yara", "zoe")  # fmt: skip
COUNTRIES = ("DE", "DE", "DE", "AT", "CH", "NL", "FR", "GB")
RELATED = {"drinks/tea": "bath/care", "drinks/coffee": "kitchen/baking", "kitchen/baking": "drinks/coffee",
           "bath/care": "garden/balcony", "garden/balcony": "kitchen/baking", "desk/paper": "drinks/tea"}  # fmt: skip
"""The second taste of those who like a category."""
IN_TASTE, IN_RELATED = 0.76, 0.16
OF_OTHERS = 0.1
"""How likely another item is, beside a favourite."""
TO_COMPANION = 0.45
"""Share of the steps of a session that lead to what is bought together with the item before."""
SEARCHES = {"drinks/tea": "green tea", "drinks/coffee": "coffee beans", "kitchen/baking": "bread",
            "bath/care": "soap", "garden/balcony": "seeds", "desk/paper": "fountain pen"}  # fmt: skip

Event = dict[str, Any]


class Visitor(NamedTuple):
    """A visitor and what she likes."""

    field: str
    """`user`, or `session` of one who never signs in."""
    name: str
    taste: str
    country: str
    n_sessions: int
    favourites: frozenset[str]
    """What she looks at of her taste; the rest she hardly knows yet."""


class _Cupboard:
    """What a visitor has bought: consumables with the day they run out, and what lasts."""

    def __init__(self) -> None:
        self.runs_out: dict[str, float] = {}
        self.owned: set[str] = set()


def visitors(rng: Random) -> list[Visitor]:
    """Return the visitors; some of them are regulars, some come once."""
    categories = list(SHOP)
    found = []
    for n in range(N_USERS + N_ANONYMOUS):
        known = n < N_USERS
        name = NAMES[n] if n < len(NAMES) else f"{'user' if known else 'guest'}-{n + 1:03}"
        regular = n < len(NAMES) or rng.random() < 0.45
        n_sessions = (rng.randint(7, 12) if regular else rng.randint(2, 6)) if known else rng.randint(1, 2)
        taste = categories[n % len(categories)]
        shelf = [product.item for category in (taste, RELATED[taste]) for product in SHOP[category]]
        favourites = frozenset(rng.sample(shelf, N_FAVOURITES))
        field = "user" if known else "session"
        found.append(Visitor(field, name, taste, rng.choice(COUNTRIES), n_sessions, favourites))
    return found


def behaviour(now_ms: int, seed: int = 7) -> list[Event]:
    """Return two months of events that end a few minutes before `now_ms`, in order of time."""
    rng = Random(seed)
    events: list[Event] = []
    for visitor in visitors(rng):
        events += _life(visitor, now_ms, Random(f"{seed} {visitor.name}"))
    events.sort(key=lambda event: (event["ts_ms"], event["event_id"]))
    return events


def _life(visitor: Visitor, now_ms: int, rng: Random) -> Iterator[Event]:
    """Yield the events of a visitor: sessions at random times."""
    cupboard, n = _Cupboard(), 0
    days = sorted(rng.uniform(0, DAYS) for _ in range(visitor.n_sessions))
    for day in days:
        at = int(now_ms - (DAYS - day) * DAY_MS)
        for event in _session(visitor, at, day, cupboard, rng):
            n += 1
            if event["ts_ms"] < now_ms - MINUTE_MS:
                who = {visitor.field: visitor.name, "country": visitor.country}
                yield {"event_id": f"sample-{visitor.name}-{n}", **who, **event}


def _session(visitor: Visitor, at: int, day: float, cupboard: _Cupboard, rng: Random) -> Iterator[Event]:
    """Yield what happens in a visit: what has run out is looked at and bought first, then the walk begins."""
    basket = [item for item, due in cupboard.runs_out.items() if due <= day + 1]
    seen: list[str] = []
    if not basket and rng.random() < 0.2:
        yield {"type": "search", "ts_ms": at, "query": SEARCHES[visitor.taste]}
    for item in basket:
        at += rng.randint(20, 90) * 1000
        yield _about("view", item, at)
        yield _about("add_to_cart", item, at + 8_000)
    item = basket[-1] if basket else ""
    for _ in range(rng.randint(2, 5)):
        item = _next(visitor, item, seen, cupboard, rng)
        seen.append(item)
        at += rng.randint(15, 120) * 1000
        yield _about("view", item, at)
        wanted = item not in basket and item not in cupboard.runs_out and item not in cupboard.owned
        if wanted and rng.random() < (0.34 if visitor.field == "user" else 0.12):
            basket.append(item)
            yield _about("add_to_cart", item, at + 9_000)
        elif rng.random() < 0.06:
            yield _about("wishlist", item, at + 7_000)
    if basket and rng.random() < 0.72:
        yield _order(basket, at + 100_000, day, cupboard, rng)
        if rng.random() < 0.15:
            yield _about("rating", basket[0], at + 130_000) | {"stars": rng.choice((3, 4, 4, 5, 5, 5))}


def _next(visitor: Visitor, before: str, seen: list[str], cupboard: _Cupboard, rng: Random) -> str:
    """Return the next item that is looked at: a companion of the one before, or one of the taste."""
    fresh = (
        [item for item in ITEMS[before].with_it if item not in seen and item not in cupboard.owned] if before else []
    )
    if fresh and rng.random() < TO_COMPANION:
        return rng.choice(fresh)
    chance = rng.random()
    category = visitor.taste if chance < IN_TASTE else RELATED[visitor.taste]
    if chance > IN_TASTE + IN_RELATED:
        category = rng.choice(list(SHOP))
    known = {*seen, *cupboard.owned, *cupboard.runs_out}
    shelf = [product for product in SHOP[category] if product.item not in known] or list(SHOP[category])
    weights = [
        (1.0 if product.item in visitor.favourites else OF_OTHERS) / (1 + place) ** 0.5
        for place, product in enumerate(shelf)
    ]
    return rng.choices(shelf, weights)[0].item


def _order(basket: list[str], ts_ms: int, day: float, cupboard: _Cupboard, rng: Random) -> Event:
    """Return the purchase of a basket; what is used up will run out, what lasts is owned."""
    for item in basket:
        product = ITEMS[item]
        if product.lasts_days:
            cupboard.runs_out[item] = day + product.lasts_days * rng.uniform(0.85, 1.15)
        else:
            cupboard.owned.add(item)
    lines = [{"item": item, "quantity": 1, **_facts(ITEMS[item])} for item in basket]
    return {"type": "purchase", "ts_ms": ts_ms, "order_id": f"S{ts_ms // 1000}", "lines": lines}


def _about(kind: str, item: str, ts_ms: int) -> Event:
    return {"type": kind, "ts_ms": ts_ms, "item": item, **_facts(ITEMS[item])}


def _facts(product: SampleProduct) -> Event:
    return {"price": product.price, "category": CATEGORY_OF[product.item], "brand": product.brand}
