"""The book of rules over REST: read, put, history, preview, lint."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import ValidationError

from flows.books import Books
from schemas.validate import EARLIEST_MS
from serving.catalogue.catalogue import Catalogue
from serving.engine.clock import now_ms
from serving.engine.micro_batcher import Overloaded
from serving.engine.recommender import BadRequest, Recommender
from serving.engine.trials import TooMany, Trials
from serving.http.errors import error, json
from serving.request.budget import Budget, TooMuch
from serving.request.requests import RecommendRequest, first_error
from serving.rules.acting import Compiled
from serving.rules.book_errors import BadBook
from serving.rules.book_store import (
    history,
    kept_text,
    lines_of,
    parse_book,
    plain,
    put_book,
    read_record,
    refuse_empty,
    text_of,
    to_book,
    without_text,
)
from serving.rules.lint import lint, refuse_errors, refuse_failing, unmeasured
from serving.rules.model import Book
from state.store.contract import StoreUnavailable

T = TypeVar("T")
LATEST_MS = 4_102_444_800_000
"""The year 2100."""
_PREVIEWS = count(1)
GIVE_UP_S = 0.1
"""How long a put goes on waiting once the store is known to be away; what was begun may still be done."""


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


def rules_router(recommender: Recommender, books: Books) -> APIRouter:
    """Return the routes under /v1/rules."""
    router, trials, putters = APIRouter(), Trials(), ThreadPoolExecutor(1, "books")

    async def _tried(prepare: Callable[[Budget], Callable[[], T]]) -> T:
        """Return what is found beside the loop. Raises BadRequest where it takes too much, Overloaded."""
        try:
            return await trials.run(prepare)
        except TooMuch as wrong:
            raise BadRequest("book", str(wrong)) from None
        except TooMany as wrong:
            raise Overloaded(str(wrong)) from None

    async def _putting(work: Callable[[], int]) -> int:
        """Return what a put returns, which runs beside the loop. Raises StoreUnavailable where the store goes away."""
        if recommender.store.is_away:
            raise StoreUnavailable("the store is away")
        future = asyncio.get_running_loop().run_in_executor(putters, work)
        while True:
            done, _ = await asyncio.wait([future], timeout=GIVE_UP_S)
            if done:
                return future.result()
            if recommender.store.is_away:
                future.add_done_callback(lambda late: late.cancelled() or late.exception())
                raise StoreUnavailable("the store went away; the book may have been put")

    @router.get("/v1/rules")
    async def live(
        format: Annotated[
            Literal["json", "yaml"], Query(description="`yaml`: the book alone, to be edited and put")
        ] = "json",
    ) -> Response:
        """The live book, and the placements there are; `ETag` is its version, for `If-Match` of a put."""
        rules = recommender.shop.rules
        version, tag = rules.version, {"ETag": f'"{rules.version}"'}
        record = await recommender.store.aside(partial(read_record, version=version)) if version else None
        if format == "yaml":
            text = text_of(record or {"book": plain(rules.book)})
            return Response(text, headers=tag, media_type="application/yaml")
        there = {name: one.model_dump() for name, one in rules.placements.items()}
        live = without_text(record or {"version": version, "book": plain(rules.book)})
        state = {"skipped_rules": rules.skipped, "missing": recommender.book_missing}
        return json({**live, "all_placements": there, **state}, 200, **tag)

    @router.get("/v1/rules/history")
    async def versions() -> Response:
        """The versions of the book, newest first, with author and time."""
        return json({"versions": await recommender.store.aside(history)})

    @router.put("/v1/rules", status_code=201)
    async def put(
        request: Request,
        author: Annotated[str, Query(description="Who puts the book there, in 1 to 100 characters")] = "",
        note: Annotated[str, Query(description="What the author says of it; 500 characters are kept")] = "",
        based_on: Annotated[
            int | None, Query(description="Version that the book was made from; 409 when another one is live")
        ] = None,
        empty: Annotated[bool, Query(description="Whether the book may have nothing in it")] = False,
        force: Annotated[bool, Query(description="Whether to put what lint calls an error")] = False,
        if_match: Annotated[str, Header(description="`ETag` of the book it was made from, instead of `based_on`")] = "",
    ) -> Response:
        """Make a book (YAML or JSON) the live one.

        `based_on`, or `If-Match`: the version it was made from, else 409. `empty`: it may have nothing in it. `force`:
        in spite of the errors of lint.
        """
        body = await request.body()
        if not 1 <= len(author) <= 100:
            return error(422, "author", "must say who puts the book there, in 1 to 100 characters")
        made_from = based_on if based_on is not None else _version_of(if_match)
        checked = await _tried(
            lambda budget: partial(_checked, body, recommender.shop.catalogue.copy(), now_ms(), budget, empty, force)
        )
        if recommender.book_missing and made_from == recommender.shop.rules.version:
            made_from = 0  # the one in use is in no store any more
        work = partial(put_book, books, checked.book, author, now_ms(), note[:500], made_from, kept_text(body))
        warnings = checked.findings + unmeasured(checked.book, recommender.shop.settings.impressions_share)
        return json({"version": await _putting(work), "warnings": warnings}, 201)

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
        return json({"book": plain(book)})

    @router.post("/v1/rules/lint")
    async def find_faults(request: Request) -> Response:
        """Contradictions, rules that match nothing, pins of items that are gone."""
        body, at_ms = await request.body(), now_ms()

        def prepared(budget: Budget) -> Callable[[], list[dict[str, Any]]]:
            catalogue = recommender.shop.catalogue.copy()
            return lambda: lint(parse_book(body), catalogue, at_ms, budget, lines_of(body))

        return json({"findings": await _tried(prepared)})

    return router


class _Checked(NamedTuple):
    """A book that may be put, and what lint warns of."""

    book: Book
    findings: list[dict[str, Any]]


def _checked(body: bytes, catalogue: Catalogue, at_ms: int, budget: Budget, empty: bool, force: bool) -> _Checked:
    """Return the book, whose rules have been evaluated over the catalogue. Raises BadBook."""
    if not body.strip():
        raise BadBook("book", "is empty: the body is the book, as YAML or JSON")
    book = parse_book(body)
    if not empty:
        refuse_empty(book)
    refuse_failing(book, catalogue, budget)
    findings = lint(book, catalogue, at_ms, budget, lines_of(body))
    if not force:
        refuse_errors(findings)
    return _Checked(book, findings)


def _version_of(tag: str) -> int | None:
    """Return the version that an If-Match names, None where it names none. Raises BadRequest."""
    if tag in ("", "*"):
        return None
    text = tag.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit()):
        raise BadRequest("If-Match", f'{tag!r:.60} is no version of a book, as "7"')
    return int(text)


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
