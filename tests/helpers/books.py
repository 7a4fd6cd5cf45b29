"""Products and rules for tests of books of rules."""

import shutil
import tempfile
import weakref
from pathlib import Path

from flows.books import Books
from flows.log.sqlite_log import SqliteLog
from helpers.serving_rows import NOW, product
from schemas.events import BOOKS
from schemas.registry import FolderRegistry
from serving.http.rules_api import trial
from serving.request.conditions import ItemCondition, RequestCondition
from serving.request.requests import RecommendRequest
from serving.rules.book_store import put_book as store_book

PRODUCTS = [
    product("tea", "Tea", brand="Acme", category="drinks/tea", price=4.0, stock=9, margin=0.5),
    product("cup", "Cup", brand="Acme", category="kitchen", price=8.0, stock=2, margin=0.1),
    product("old", "Old", brand="Globex", category="kitchen", price=2.0, stock=50),
    *(product(f"other{n}", f"Other {n}", brand=f"b{n % 3}", category="misc", price=float(n)) for n in range(10)),
]

_FOLDERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
"""Of each store: the folder of its log."""


def books_of(store, folder=None):
    """Return the books of a store, whose log is in the folder, or in one of the store's own."""
    if folder is None:
        folder = _FOLDERS.get(store)
        if folder is None:
            folder = _FOLDERS[store] = Path(tempfile.mkdtemp())
            weakref.finalize(store, shutil.rmtree, folder, True)
    return Books(store, lambda: SqliteLog(folder / "log.sqlite", [BOOKS]), FolderRegistry())


def put_book(store, book, author, at_ms, note="", folder=None):
    return store_book(books_of(store, folder), book, author, at_ms, note)


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
