"""Products and rules for tests of books of rules."""

from helpers.serving_rows import NOW, product
from serving.http.rules_api import trial
from serving.request.conditions import ItemCondition, RequestCondition
from serving.request.requests import RecommendRequest

PRODUCTS = [
    product("tea", "Tea", brand="Acme", category="drinks/tea", price=4.0, stock=9, margin=0.5),
    product("cup", "Cup", brand="Acme", category="kitchen", price=8.0, stock=2, margin=0.1),
    product("old", "Old", brand="Globex", category="kitchen", price=2.0, stock=50),
    *(product(f"other{n}", f"Other {n}", brand=f"b{n % 3}", category="misc", price=float(n)) for n in range(10)),
]


def with_rules(recommender, *rules, at=NOW, placements=None, **request):
    book = trial({"rules": list(rules), "placements": placements or {}})
    asked = RecommendRequest(explain=True, **{"user": "ann", "count": 13, **request})
    return recommender.recommend([asked], at, book)[0]


def rule(action, **more):
    return {"id": "r", "action": action, **more}


BROKEN = {"id": "broken", "action": "include", "where": "price < 3 or price > 12345"}


def plant(monkeypatch, error, source=BROKEN["where"]):
    """Have one condition fail whenever it is evaluated."""
    plain_mask, plain_holds = ItemCondition.mask, RequestCondition.holds

    def mask(condition, *args):
        if condition.source == source:
            raise error
        return plain_mask(condition, *args)

    def holds(condition, *args):
        if condition.source == source:
            raise error
        return plain_holds(condition, *args)

    monkeypatch.setattr(ItemCondition, "mask", mask)
    monkeypatch.setattr(RequestCondition, "holds", holds)
