"""What the demo shows: three households that can be told apart, and one purchase that changes an answer."""

import time
import urllib.request
from collections.abc import Callable
from typing import Any

import orjson
import polars as pl

from headrace.console import err

THEMES = (
    ("BABY FOODS", "has a baby"),
    ("DOMESTIC WINE", "drinks wine"),
    ("DOG FOODS", "has a dog"),
)
"""Product categories whose best customers are shown, and what that says of them."""
BOUGHT, BUYER = "DIAPERS & DISPOSABLES", "DOG FOODS"
"""The best customer of BUYER who never bought BOUGHT buys it."""
SHOWN, ASKED = 4, 40
LEAST_LINES = 150
OTHER = "Other things"
"""Products whose kind the data set does not know."""
WAIT_S = 300.0


def title_of(product: str, size: str | None = None) -> str:
    """Return a product as people write it.

    >>> title_of("CANNED CAT FOOD (9 LIVES/FRISK", "5.5 OZ")
    'Canned cat food, 5.5 oz'
    """
    name = product.partition("(")[0].strip(" -").capitalize()
    return f"{name}, {size.lower()}" if size else name


def wait_for(true: Callable[[], bool], otherwise: str) -> None:
    """Return when `true` returns True. Raises TimeoutError, with the text."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)


def ask(where: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """Return the server's answer to a request for recommendations."""
    return _post(f"{where['http']}/v1/recommend", body)


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, orjson.dumps(body), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return dict(orjson.loads(answer.read()))


class Story:
    """The demo's shop, and what is printed of it."""

    def __init__(self, where: dict[str, str], transactions: pl.DataFrame, products: pl.DataFrame) -> None:
        self._where = where
        kinds = products.select("product_id", "product_category", "product_type")
        self._bought = transactions.join(kinds, on="product_id", how="left")
        self._names = {str(product): title_of(name) if name else OTHER for product, _, name in kinds.iter_rows()}

    def show_household(self, category: str, says: str) -> None:
        """Print what the best customer of a category bought last, buys again, and could discover."""
        household = self._customers(category)[0]
        own = self._bought.filter(pl.col("household_id") == household).sort("transaction_timestamp")
        n = own.filter(pl.col("product_category") == category).height
        err.print(f"\n[b]household {household}[/b] {says}: {n} of its {own.height:,} purchases are {category.lower()}")
        last = [self._names.get(str(product), OTHER) for product in own["product_id"].tail(30).reverse().to_list()]
        err.print(f"  bought last: {', '.join(list(dict.fromkeys(last))[:SHOWN])}", markup=False)
        for title, options in (
            ("next, with what it buys again", {"repeat": "allow"}),
            ("something new for it", {"repeat": "exclude", "exclude_purchased": True}),
        ):
            answer = ask(self._where, {"user": str(household), "count": ASKED, **options})
            err.print(f"  {title} ({answer['milliseconds']:.1f} ms):")
            self._print(self._distinct(answer)[:SHOWN])

    def show_a_purchase(self) -> None:
        """Print how an answer changes by the first purchase of something."""
        buyers = self._customers(BOUGHT)
        household = str(next(one for one in self._customers(BUYER) if one not in set(buyers)))
        of_kind = self._bought.filter(pl.col("product_category") == BOUGHT)["product_id"]
        item = str(of_kind.value_counts(sort=True)["product_id"][0])
        request = {"user": household, "count": ASKED, "repeat": "exclude"}
        before = {name for name, _ in self._distinct(ask(self._where, request))}
        began = time.perf_counter()
        _post(f"{self._where['http']}/v1/events", {"type": "purchase", "user": household, "item": item, "quantity": 1})
        accepted_ms = (time.perf_counter() - began) * 1000
        fresh: list[tuple[str, str]] = []
        while not fresh:
            fresh = [one for one in self._distinct(ask(self._where, request)) if one[0] not in before]
            if time.perf_counter() - began > WAIT_S:
                raise TimeoutError("the purchase did not change the answer")
        visible_ms = (time.perf_counter() - began) * 1000
        err.print(
            f"\n[b]household {household} buys {self._names[item].lower()}, for the first time[/b]; new in its list:"
        )
        self._print(fresh[:SHOWN])
        err.print(f"  acknowledged after {accepted_ms:.1f} ms, visible in an answer after [b]{visible_ms:.1f} ms[/b]")

    def _customers(self, category: str) -> list[int]:
        """Return the households that bought of a category, those first whose purchases it is the largest share of."""
        share = (pl.col("product_category") == category).fill_null(False)
        found = self._bought.group_by("household_id").agg(n=share.sum(), share=share.mean(), lines=pl.len())
        some = found.filter((pl.col("n") > 0) & (pl.col("lines") >= LEAST_LINES))
        return [int(one) for one in some.sort(["share", "household_id"], descending=[True, False])["household_id"]]

    def _distinct(self, answer: dict[str, Any]) -> list[tuple[str, str]]:
        """Return (name, reason) of an answer's products, each kind of product once."""
        found: dict[str, str] = {}
        for item in answer["items"]:
            found.setdefault(self._names.get(item["item"], item["title"]), item["reason"]["text"])
        return list(found.items())

    def _print(self, products: list[tuple[str, str]]) -> None:
        for name, reason in products:
            err.print(f"    {name:36.36} {reason}", markup=False, highlight=False)
