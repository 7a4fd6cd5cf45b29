"""The book of rules over REST: read, put, look back, try, lint."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from itertools import count
from threading import Lock
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from serving.clock import now_ms
from serving.http_parts import error, json
from serving.lint_rules import lint
from serving.requests import RecommendRequest, first_error
from serving.rule_book import BadBook, history, parse_book, put_book, read_record, to_book
from serving.rules import Book, Compiled
from serving.service import BadRequest, Recommender
from state.store import Store

_PREVIEWS = count(1)
_PUTTING = Lock()
"""Commits of one lane may not run at the same time, and the book is one."""


def preview(recommender: Recommender, rules: Compiled, asked: RecommendRequest, at_ms: int) -> dict[str, Any]:
    """Return the answer to a request by the live book and by another one, with the rules' traces."""
    asked = asked.model_copy(update={"explain": True})
    before = recommender.recommend([asked], at_ms)[0]
    after = recommender.recommend([asked], at_ms, rules)[0]
    return {"before": before, "after": after}


def trial(book: Any) -> Compiled:
    """Return a book to be tried: it has a version of its own below zero. Raises BadBook."""
    return Compiled(to_book(book), -next(_PREVIEWS))


def rules_router(recommender: Recommender) -> APIRouter:
    """Return the routes under /v1/rules."""
    router = APIRouter()

    @router.get("/v1/rules")
    async def live() -> Response:
        """The live book, and the placements there are."""
        rules = recommender.shop.rules
        version = rules.version
        record = await recommender.store.aside(partial(read_record, version=version)) if version else None
        there = {name: one.model_dump() for name, one in rules.placements.items()}
        live = record or {"version": 0, "book": {}}
        return json({**live, "all_placements": there, "left_out": rules.left_out})

    @router.get("/v1/rules/history")
    async def versions() -> Response:
        """Who put which book when, newest first."""
        return json({"versions": await recommender.store.aside(history)})

    @router.put("/v1/rules")
    async def put(request: Request, author: str = "", note: str = "") -> Response:
        """Make a book (YAML or JSON) the live one."""
        book = parse_book(await request.body())
        if not 1 <= len(author) <= 100:
            return error(422, "author", "is needed: who puts the book there")
        putting = partial(_put, book=book, author=author, now_ms=now_ms(), note=note[:500])
        version = await recommender.store.aside(putting)
        return json({"version": version}, 201)

    @router.post("/v1/rules/preview")
    async def before_and_after(request: Request) -> Response:
        """Answer `request` at time `at` with the live book and with `book`."""
        body = await _object(request)
        rules = trial(body.get("book", {}))
        try:
            asked = RecommendRequest.model_validate(body.get("request", {}))
            at_ms = parse_at(str(body.get("at", "now")))
        except ValidationError as wrong:
            field, message = first_error(wrong)
            raise BadRequest(f"request.{field}", message) from None
        if asked.placement and asked.placement not in rules.placements:
            raise BadRequest("request.placement", f"there is no {asked.placement!r}")
        return json(preview(recommender, rules, asked, at_ms))

    @router.post("/v1/rules/read")
    async def read(request: Request) -> Response:
        """Check a book (YAML or JSON) and return it as JSON."""
        return json({"book": parse_book(await request.body()).model_dump(mode="json", exclude_defaults=True)})

    @router.post("/v1/rules/lint")
    async def find_faults(request: Request) -> Response:
        """Contradictions, rules that match nothing, pins of items that are gone."""
        book = parse_book(await request.body())
        findings = await asyncio.to_thread(
            lint, book, recommender.shop.catalogue, now_ms()
        )  # pairs of rules: it may take a while
        return json({"findings": findings})

    return router


def _put(store: Store, book: Book, author: str, now_ms: int, note: str) -> int:
    with _PUTTING:
        return put_book(store, book, author, now_ms, note)


def parse_at(text: str) -> int:
    """Return ms since 1970 of `now` or an ISO 8601 time (UTC unless it says). Raises BadRequest."""
    if text == "now":
        return now_ms()
    try:
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadRequest("at", f"{text!r} is neither `now` nor a time like 2026-11-01T00:00Z") from None


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except ValueError:
        raise BadBook("body", "is not JSON") from None
    if not isinstance(body, dict):
        raise BadBook("body", "must be an object")
    return body
