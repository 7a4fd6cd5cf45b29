"""`headrace rules`: try, check, put and look back at the book of business rules."""

import getpass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from flows.connect import open_store
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from serving.app.follower import open_recommender
from serving.engine.clock import now_ms
from serving.engine.recommender import BadRequest, Recommender
from serving.http.rules_api import parse_at, preview, trial
from serving.rendering.answer_bytes import answer_json
from serving.request.answer import Answer
from serving.request.budget import UNBOUNDED
from serving.request.requests import RecommendRequest, first_error
from serving.retrieval.vector_index import VectorIndex
from serving.rules.book_store import (
    BadBook,
    history,
    live_version,
    load_book,
    put_book,
    read_book,
    read_record,
    to_book,
)
from serving.rules.lint import lint, refuse_failing
from serving.rules.model import Book
from state.anchor import AnchorDamaged
from state.anchors.contract import AnchorsUnavailable
from state.anchors.open_anchors import open_anchors
from state.generations import live_generation
from state.rows import keys
from state.store.contract import Fenced, StoreUnavailable
from state.store.redis_store import RedisStore

ACTIONS = ("show", "lint", "test", "put", "history", "back")


def run(
    settings: Settings, action: str, what: str, request: dict[str, Any], at: str, author: str, note: str, json: bool
) -> int:
    """Do one of ACTIONS; return the exit code. `what` is a file, or for `back` a version."""
    if action not in ACTIONS:
        err.print(f"use one of {', '.join(ACTIONS)}; got {action!r}", markup=False)
        return WRONG_USAGE
    try:
        book = load_book(Path(what)) if action in ("lint", "test", "put") else None
        store = open_store(settings)
        if action == "show":
            return _show(store, json)
        if action == "history":
            return _history(store, json)
        if action == "back":
            return _back(store, what, author, json)
        assert book is not None
        if action == "put":
            refuse_failing(book, _opened(settings, store).shop.catalogue)
            return _put(store, book, author, note, json)
        recommender = _recommender(settings, store)
        if action == "lint":
            return _lint(recommender, book, json)
        return _test(recommender, book, request, at, json)
    except BadBook as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    except Fenced:
        err.print("somebody else put a book meanwhile; look again")
        return FAILED
    except StoreUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE


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


def _show(store: RedisStore, json: bool) -> int:
    record = read_record(store, live_version(store)) or {"version": 0, "book": {}}
    if json:
        print_json(record)
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
    table = Table("version", "put by", "at (ms)", "rules", "note")
    for record in records:
        n_rules = len(record["book"].get("rules", ()))
        table.add_row(str(record["version"]), record["author"], str(record["at_ms"]), str(n_rules), record["note"])
    Console().print(table)
    return OK


def _put(store: RedisStore, book: Book, author: str, note: str, json: bool) -> int:
    version = put_book(store, book, author or getpass.getuser(), now_ms(), note)
    if json:
        print_json({"version": version})
    else:
        err.print(f"version {version} is live; servers follow within a second")
    return OK


def _back(store: RedisStore, version: str, author: str, json: bool) -> int:
    record = read_record(store, int(version)) if version.isdigit() else None
    if record is None:
        err.print(f"there is no version {version!r}; `headrace rules history` lists them", markup=False)
        return WRONG_USAGE
    return _put(store, to_book(record["book"]), author, f"back to version {version}", json)


def _lint(recommender: Recommender, book: Book, json: bool) -> int:
    findings = lint(book, recommender.shop.catalogue, now_ms())
    if json:
        print_json({"findings": findings})
    for finding in findings if not json else ():
        err.print(f"{finding['level']}: {finding['rule']} {finding['message']}", markup=False)
    if not findings and not json:
        err.print(f"{len(book.rules)} rules, nothing found")
    return FAILED if any(finding["level"] == "error" for finding in findings) else OK


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
    action: Annotated[str, typer.Argument(help="show, lint FILE, test FILE, put FILE, history, back VERSION")] = "show",
    what: Annotated[str, typer.Argument(help="A book of rules (YAML or JSON), or a version.")] = "",
    user: Annotated[str, typer.Option(help="test: the user who asks.")] = "",
    item: Annotated[list[str], typer.Option(help="test: an item in context; may repeat.")] = [],  # noqa: B006
    placement: Annotated[str, typer.Option(help="test: where the list is shown.")] = "",
    country: Annotated[str, typer.Option(help="test: the visitor's country.")] = "",
    count: Annotated[int, typer.Option(help="test: how many items.")] = 10,
    at: Annotated[str, typer.Option(help="test: time of the request, ISO 8601.")] = "now",
    author: Annotated[str, typer.Option(help="put: who puts it there; default: the login.")] = "",
    note: Annotated[str, typer.Option(help="put: why.")] = "",
    json: Json = False,
) -> None:
    """Business rules: try a book on a request, check it, make it live, look back, go back."""
    request = {"user": user, "items": item, "placement": placement, "country": country, "count": count}
    raise typer.Exit(run(read_settings(), action, what, request, at, author, note, json))
