"""The book of rules over REST: read, put, history, preview, lint."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import count
from threading import Lock
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from schemas.validate import EARLIEST_MS
from serving.catalogue.catalogue import Catalogue
from serving.engine.clock import now_ms
from serving.engine.micro_batcher import Overloaded
from serving.engine.recommender import BadRequest, Recommender
from serving.engine.trials import TooMany, Trials
from serving.http.middleware import error, json
from serving.request.budget import Budget, TooMuch
from serving.request.requests import RecommendRequest, first_error
from serving.rules.acting import Compiled
from serving.rules.book_store import BadBook, history, parse_book, put_book, read_record, to_book
from serving.rules.lint import lint, refuse_failing
from serving.rules.model import Book
from state.store.contract import Store, StoreUnavailable

T = TypeVar("T")
LATEST_MS = 4_102_444_800_000
"""The year 2100."""
_PREVIEWS = count(1)
_PUTTING = Lock()
"""Commits of one lane may not run at the same time, and the book is one."""


def preview(frozen: Recommender, rules: Compiled, asked: RecommendRequest, at_ms: int) -> dict[str, Any]:
    """Return the answer to a request at a time by the live book and by another one, with the rules' traces.

    Whatever it takes to answer stays with `frozen`, which is of no use afterwards. Raises StoreUnavailable.
    """
    frozen.shop.see_trends(at_ms)
    asked = asked.model_copy(update={"explain": True})
    before = frozen.recommend([asked], at_ms)[0]
    after = frozen.recommend([asked], at_ms, rules)[0]
    if frozen.store.is_away:  # answers from memory do not show what the book does
        raise StoreUnavailable("the store went away while the book was tried")
    return {"before": before, "after": after, "skipped_rules": rules.skipped}


def trial(book: Any) -> Compiled:
    """Return a book to be tried: it has a version of its own below zero. Raises BadBook."""
    return Compiled(to_book(book), -next(_PREVIEWS))


def rules_router(recommender: Recommender) -> APIRouter:
    """Return the routes under /v1/rules."""
    router, trials = APIRouter(), Trials()

    async def _tried(prepare: Callable[[Budget], Callable[[], T]]) -> T:
        """Return what is found beside the loop. Raises BadRequest where it takes too much, Overloaded."""
        try:
            return await trials.run(prepare)
        except TooMuch as wrong:
            raise BadRequest("book", str(wrong)) from None
        except TooMany as wrong:
            raise Overloaded(str(wrong)) from None

    @router.get("/v1/rules")
    async def live() -> Response:
        """The live book, and the placements there are."""
        rules = recommender.shop.rules
        version = rules.version
        record = await recommender.store.aside(partial(read_record, version=version)) if version else None
        there = {name: one.model_dump() for name, one in rules.placements.items()}
        live = record or {"version": 0, "book": {}}
        return json({**live, "all_placements": there, "skipped_rules": rules.skipped})

    @router.get("/v1/rules/history")
    async def versions() -> Response:
        """The versions of the book, newest first, with author and time."""
        return json({"versions": await recommender.store.aside(history)})

    @router.put("/v1/rules")
    async def put(request: Request, author: str = "", note: str = "") -> Response:
        """Make a book (YAML or JSON) the live one."""
        body = await request.body()
        if not 1 <= len(author) <= 100:
            return error(422, "author", "must say who puts the book there, in 1 to 100 characters")
        book = await _tried(lambda budget: partial(_acted_once, body, recommender.shop.catalogue.copy(), budget))
        putting = partial(_put, book=book, author=author, now_ms=now_ms(), note=note[:500])
        version = await recommender.store.aside(putting)
        return json({"version": version}, 201)

    @router.post("/v1/rules/preview")
    async def before_and_after(request: Request) -> Response:
        """Answer `request` at time `at` with the live book and with `book`."""
        body = await request.body()
        await recommender.store.ready()
        return await _tried(lambda budget: partial(_previewed, body, recommender.frozen(budget)))

    @router.post("/v1/rules/read")
    async def read(request: Request) -> Response:
        """Check a book (YAML or JSON) and return it as JSON."""
        body = await request.body()
        book = await _tried(lambda budget: partial(parse_book, body))
        return json({"book": book.model_dump(mode="json", exclude_defaults=True)})

    @router.post("/v1/rules/lint")
    async def find_faults(request: Request) -> Response:
        """Contradictions, rules that match nothing, pins of items that are gone."""
        body, at_ms = await request.body(), now_ms()

        def prepared(budget: Budget) -> Callable[[], list[dict[str, str]]]:
            catalogue = recommender.shop.catalogue.copy()
            return lambda: lint(parse_book(body), catalogue, at_ms, budget)

        return json({"findings": await _tried(prepared)})

    return router


def _acted_once(body: bytes, catalogue: Catalogue, budget: Budget) -> Book:
    """Return the book, whose rules have been evaluated over the catalogue. Raises BadBook."""
    book = parse_book(body)
    refuse_failing(book, catalogue, budget)
    return book


def _previewed(body: bytes, frozen: Recommender) -> Response:
    """Return the preview that a body requests. Raises BadBook, BadRequest and StoreUnavailable."""
    document = _object(body)
    rules = trial(document.get("book", {}))
    try:
        asked = RecommendRequest.model_validate(document.get("request", {}))
        at_ms = parse_at(str(document.get("at", "now")))
    except ValidationError as wrong:
        field, message = first_error(wrong)
        raise BadRequest(f"request.{field}", message) from None
    if asked.placement and asked.placement not in rules.placements:
        raise BadRequest("request.placement", f"there is no {asked.placement!r}")
    with contextlib.closing(frozen.store):
        return json(preview(frozen, rules, asked, at_ms))


def _put(store: Store, book: Book, author: str, now_ms: int, note: str) -> int:
    with _PUTTING:
        return put_book(store, book, author, now_ms, note)


def parse_at(text: str) -> int:
    """Return ms since 1970 of `now` or an ISO 8601 time (UTC unless it says). Raises BadRequest."""
    if text == "now":
        return now_ms()
    try:
        at = datetime.fromisoformat(text)
        at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadRequest("at", f"{text!r:.60} is neither `now` nor a time like 2026-11-01T00:00Z") from None
    if not EARLIEST_MS <= at_ms <= LATEST_MS:
        raise BadRequest("at", f"{text!r:.60} is not between the years 2000 and 2100")
    return at_ms


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except ValueError:
        raise BadBook("body", "is not JSON") from None
    if not isinstance(body, dict):
        raise BadBook("body", "must be an object")
    return body
