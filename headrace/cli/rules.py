"""`headrace rules`: begin, try, check, put and look back at the book of business rules."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from flows.books import BookConflict, open_books
from flows.connect import open_store
from flows.log.contract import LogUnavailable
from flows.log.open_registry import open_registry
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.registry import RegistryUnavailable
from serving.app.follower import open_recommender
from serving.engine.clock import now_ms
from serving.engine.recommender import BadRequest, Recommender
from serving.http.rules_api import parse_at, preview, trial
from serving.rendering.answer_bytes import answer_json
from serving.request.answer import Answer
from serving.request.budget import UNBOUNDED
from serving.request.requests import RecommendRequest, first_error
from serving.retrieval.vector_index import VectorIndex
from serving.rules.book_errors import BadBook
from serving.rules.book_store import (
    history,
    kept_text,
    lines_of,
    live_version,
    parse_book,
    put_book,
    read_book,
    read_record,
    refuse_empty,
    text_of,
    to_book,
    without_text,
)
from serving.rules.lint import lint, refuse_errors, refuse_failing, unmeasured
from serving.rules.model import Book
from state.anchor import AnchorDamaged
from state.anchors.contract import AnchorsUnavailable
from state.anchors.open_anchors import open_anchors
from state.generations import live_generation
from state.rows import keys
from state.store.contract import StoreUnavailable
from state.store.redis_store import RedisStore

ACTIONS = ("show", "text", "init", "lint", "test", "put", "history", "back")
STARTER = """\
# A book of rules: what the shop wants, whatever the score. Try it, check it, and make it live:
#   headrace rules test book.yaml --user ann
#   headrace rules lint book.yaml
#   headrace rules put book.yaml --note "why"
rules:
- {id: keep-some, action: min_stock, least: 1}          # nothing that is sold out
- {id: mix, action: cap, by: brand, most: 3, first: 6}   # at most three of a brand among the first six
# - {id: hero, action: pin, items: [sku-1, sku-2], position: 1, placements: [home]}
# - {id: own-brand, action: boost, where: brand == "Ours", factor: 1.5}
# - {id: no-weapons, action: exclude, where: 'under(category, "weapons")', when: country == "DE"}
# - id: christmas
#   action: promote
#   where: under(category, "gifts")
#   positions: [2, 5]
#   start: 2026-12-01
#   end: 2026-12-24T18:00:00+01:00
placements:                                             # defaults of requests that name one
  home: {count: 12, diversity: 0.2}
# experiments:
# - id: variety
#   placements: [home]
#   share: 0.2
#   arms: [{name: as-is}, {name: varied, diversity: 0.4}]
"""
"""What `init` prints: a valid book over any catalogue."""


class PutOptions(NamedTuple):
    """How a book is put: by whom and why, the version it was made from, what is let pass, and its text."""

    author: str
    note: str
    based_on: int | None = None
    empty: bool = False
    force: bool = False
    text: str = ""


def run(
    settings: Settings, action: str, what: str, request: dict[str, Any], at: str, how: PutOptions, json: bool
) -> int:
    """Do one of ACTIONS; return the exit code. `what` is a file, or for `back` a version."""
    if action not in ACTIONS:
        err.print(f"use one of {', '.join(ACTIONS)}; got {action!r}", markup=False)
        return WRONG_USAGE
    if action == "init":
        print(STARTER, end="")
        return OK
    try:
        text = _text(Path(what)) if action in ("lint", "test", "put") else b""
        book = parse_book(text)
        store = open_store(settings)
        if action == "show":
            return _show(store, json)
        if action == "text":
            return _print_text(store)
        if action == "history":
            return _history(store, json)
        if action == "back":
            return _back(settings, store, what, how, json)
        if action == "put":
            return _check_and_put(settings, store, text, how, json)
        recommender = _recommender(settings, store)
        if action == "lint":
            return _lint(recommender, text, json)
        return _test(recommender, book, request, at, json)
    except BadBook as error:
        return _print_errors(error, what, json)
    except BookConflict as error:
        err.print(str(error), markup=False)
        return FAILED
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE


def _text(path: Path) -> bytes:
    """Return the text of a book. Raises BadBook."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadBook(str(path), error.strerror or "cannot be read") from None
    if not text.strip():
        raise BadBook(str(path), "is empty; `headrace rules init` prints a book to begin with")
    return text


def _print_errors(wrong: BadBook, what: str, json: bool) -> int:
    if json:
        print_json({"errors": [error._asdict() for error in wrong.errors]})
        return WRONG_USAGE
    n = len(wrong.errors)
    if n > 1:
        err.print(f"{what} has {n} errors:", markup=False)
    for error in wrong.errors:
        err.print(str(error), markup=False)
    return WRONG_USAGE


def _opened(settings: Settings, store: RedisStore) -> Recommender:
    """Return a recommender with the catalogue loaded."""
    recommender = open_recommender(store, settings, live_generation(store) or settings.generation)
    recommender.refresh(now_ms())
    return recommender


def _recommender(settings: Settings, store: RedisStore) -> Recommender:
    """Return what a server would answer with now."""
    recommender = _opened(settings, store)
    recommender.shop.rules = read_book(store, live_version(store))
    anchor = store.read([keys.ANCHOR_LIVE])[0]
    if anchor is not None:
        try:
            recommender.set_index(VectorIndex.load(open_anchors(settings).fetch(anchor.decode())))
        except (AnchorDamaged, AnchorsUnavailable, OSError) as error:
            err.print(f"without the anchor: {error}", markup=False)
    return recommender


def _print_text(store: RedisStore) -> int:
    record = read_record(store, live_version(store))
    print(text_of(record) if record else "", end="")
    return OK


def _show(store: RedisStore, json: bool) -> int:
    record = read_record(store, live_version(store)) or {"version": 0, "book": {}}
    if json:
        print_json(without_text(record))
        return OK
    table = Table("rule", "action", "priority", "where / items", "when", title=f"rules, version {record['version']}")
    for rule in to_book(record["book"]).rules:
        about = getattr(rule, "where", "") or ", ".join(getattr(rule, "items", ()))
        table.add_row(rule.id, rule.action, str(rule.priority), about, rule.when)
    Console().print(table)
    return OK


def _history(store: RedisStore, json: bool) -> int:
    records = history(store)
    if json:
        print_json({"versions": records})
        return OK
    table = Table("version", "put by", "at (UTC)", "rules", "note")
    for record in records:
        n_rules = len(record["book"].get("rules", ()))
        at = f"{datetime.fromtimestamp(record['at_ms'] / 1000, UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(str(record["version"]), record["author"], at, str(n_rules), record["note"])
    Console().print(table)
    return OK


def _check_and_put(settings: Settings, store: RedisStore, text: bytes, how: PutOptions, json: bool) -> int:
    book, catalogue = parse_book(text), _opened(settings, store).shop.catalogue
    if not how.empty:
        refuse_empty(book)
    refuse_failing(book, catalogue)
    findings = lint(book, catalogue, now_ms(), lines=lines_of(text)) + unmeasured(book, settings.impressions_share)
    if not how.force:
        refuse_errors(findings)
    if not json:
        _print_findings(findings)
    return _put(settings, store, book, how._replace(text=kept_text(text)), json, findings)


def _put(
    settings: Settings, store: RedisStore, book: Book, how: PutOptions, json: bool, findings: list[dict[str, Any]]
) -> int:
    books = open_books(settings, store, open_registry(settings))
    version = put_book(books, book, how.author or getpass.getuser(), now_ms(), how.note, how.based_on, how.text)
    if json:
        print_json({"version": version, "warnings": findings})
    else:
        err.print(f"version {version} is live; servers follow within a second")
    return OK


def _back(settings: Settings, store: RedisStore, version: str, how: PutOptions, json: bool) -> int:
    record = read_record(store, int(version)) if version.isdigit() else None
    if record is None:
        err.print(f"there is no version {version!r}; `headrace rules history` lists them", markup=False)
        return WRONG_USAGE
    noted = how._replace(note=f"back to version {version}", text=record.get("text", ""))
    return _put(settings, store, to_book(record["book"]), noted, json, [])


def _lint(recommender: Recommender, text: bytes, json: bool) -> int:
    book = parse_book(text)
    findings = lint(book, recommender.shop.catalogue, now_ms(), lines=lines_of(text))
    if json:
        print_json({"findings": findings})
    else:
        _print_findings(findings)
    if not findings and not json:
        err.print(f"{len(book.rules)} rules, nothing found")
    return FAILED if any(finding["level"] == "error" for finding in findings) else OK


def _print_findings(findings: list[dict[str, Any]]) -> None:
    for one in findings:
        line = f"line {one['line']}" if one["line"] else ""
        place = ", ".join(part for part in (line, one["rule"], one["field"]) if part)
        err.print(f"{one['level']}: {place}: {one['message']}", markup=False)


def _test(recommender: Recommender, book: Book, request: dict[str, Any], at: str, json: bool) -> int:
    try:
        asked = RecommendRequest.model_validate({name: value for name, value in request.items() if value})
        at_ms = parse_at(at)
    except ValidationError as error:
        err.print("{}: {}".format(*first_error(error)), markup=False)
        return WRONG_USAGE
    except BadRequest as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    found: dict[str, Any] = preview(recommender.frozen(UNBOUNDED), trial(book.model_dump(mode="json")), asked, at_ms)
    if json:
        print_json({name: orjson.loads(answer_json(found[name])) for name in ("before", "after")})
        return OK
    before: Answer = found["before"]
    after: Answer = found["after"]
    place = {one.item: n for n, one in enumerate(before.items, 1)}
    table = Table("", "live book", "this book", "was", "rules")
    for n in range(max(len(before.items), len(after.items))):
        left = before.items[n].title if n < len(before.items) else ""
        one = after.items[n] if n < len(after.items) else None
        was = "" if one is None else str(place.get(one.item, "new"))
        table.add_row(str(n + 1), left, one.title if one else "", was, ", ".join(one.rules) if one else "")
    Console().print(table)
    for trace in after.rules:
        err.print(f"{trace.rule} ({trace.action}): {trace.effect}: {', '.join(trace.items) or 'nothing'}", markup=False)
    return OK


def command(
    action: Annotated[
        str, typer.Argument(help="show, text, init, lint FILE, test FILE, put FILE, history, back VERSION")
    ] = "show",
    what: Annotated[str, typer.Argument(help="A book of rules (YAML or JSON), or a version.")] = "",
    user: Annotated[str, typer.Option(help="test: the user who asks.")] = "",
    item: Annotated[list[str], typer.Option(help="test: an item in context; may repeat.")] = [],  # noqa: B006
    placement: Annotated[str, typer.Option(help="test: where the list is shown.")] = "",
    country: Annotated[str, typer.Option(help="test: the visitor's country.")] = "",
    count: Annotated[int, typer.Option(help="test: how many items.")] = 10,
    at: Annotated[str, typer.Option(help="test: time of the request, ISO 8601.")] = "now",
    author: Annotated[str, typer.Option(help="put: who puts it there; default: the login.")] = "",
    note: Annotated[str, typer.Option(help="put: why.")] = "",
    based_on: Annotated[int | None, typer.Option(help="put: the version it was made from, else it is refused.")] = None,
    empty: Annotated[bool, typer.Option("--empty", help="put: a book with nothing in it, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="put: in spite of what lint calls an error.")] = False,
    json: Json = False,
) -> None:
    """Business rules: begin a book, try it on a request, check it, make it live, look back, go back."""
    request = {"user": user, "items": item, "placement": placement, "country": country, "count": count}
    raise typer.Exit(
        run(read_settings(), action, what, request, at, PutOptions(author, note, based_on, empty, force), json)
    )
