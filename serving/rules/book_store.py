"""Books of rules as Redis holds them: versions that stay, one that is live, and who put it there.

`flows.books` puts them into the log and from there into Redis, and names the rows.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
import structlog
import yaml
from pydantic import ValidationError

from flows.books import Books
from serving.rules.acting import RULE_FAILURES, Compiled
from serving.rules.book_errors import BadBook, bad_book
from serving.rules.book_text import BookText, read_text
from serving.rules.mistakes import errors_of
from serving.rules.model import Book
from state.rows import keys
from state.store.contract import RowReader, decode_positions

MOST_TEXT = 200_000
"""Bytes: with the same again as JSON it is a message that every broker takes."""

log = structlog.get_logger()


def parse_book(text: str | bytes) -> Book:
    """Return the book in a YAML or JSON text. Raises BadBook with all that is wrong."""
    return _book_of(read_text(text))


def refuse_empty(book: Book) -> None:
    """Raise BadBook for a book without rules, placements and experiments: it would remove all that there are."""
    if not (book.rules or book.placements or book.experiments):
        raise BadBook(
            "book", "has no rules, placements or experiments; to remove all that are live, put with empty=true"
        )


def lines_of(text: str | bytes) -> dict[str, int]:
    """Return the lines where the rules and experiments of a book that can be parsed begin, by id."""
    read = read_text(text)
    data = read.data if isinstance(read.data, dict) else {}
    return {
        one["id"]: read.line((kind, n))
        for kind in ("experiments", "rules")
        for n, one in enumerate(data.get(kind) or ())
    }


def to_book(document: Any) -> Book:
    """Return the book in plain data. Raises BadBook with all that is wrong."""
    return _book_of(BookText(document))


def _book_of(text: BookText) -> Book:
    try:
        return Book.model_validate({} if text.data is None else text.data)
    except ValidationError as error:
        raise bad_book(errors_of(text, error)) from None


def compiled(document: Any, version: int) -> Compiled:
    """Return a book that was put once, ready to use. Raises BadBook.

    A rule that this program refuses, and one of another version took, is left out and said: the others still hold.
    """
    try:
        return Compiled(to_book(document), version)
    except BadBook as refused:
        if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
            raise
        good, skipped = [], dict[str, str]()
        for n, rule in enumerate(document["rules"]):
            try:
                to_book({**document, "rules": [rule], "experiments": []})
                good.append(rule)
            except BadBook as wrong:
                skipped[str(rule.get("id", n)) if isinstance(rule, dict) else str(n)] = wrong.message
        if not skipped:
            raise
        log.error("rules are left out", version=version, rules=skipped, error=str(refused))
        RULE_FAILURES.inc(len(skipped))
        experiments = [_without(skipped, one) for one in document.get("experiments", [])]
        return Compiled(to_book({**document, "rules": good, "experiments": experiments}), version, skipped)


def _without(skipped: Mapping[str, str], experiment: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment that no longer names rules which are left out."""
    arms = [
        {**arm, "without_rules": [rule for rule in arm.get("without_rules", ()) if rule not in skipped]}
        for arm in experiment.get("arms", ())
    ]
    return {**experiment, "arms": arms}


def live_version(store: RowReader) -> int:
    """Return the number of the live book, 0 when there is none."""
    return decode_positions(store.read([keys.positions(keys.RULES)])[0]).get("book", 0)


def newest_version(store: RowReader) -> int:
    """Return the number of the newest book, 0 when there is none."""
    return decode_positions(store.read([keys.positions(keys.RULES)])[0]).get("newest", 0)


def read_record(store: RowReader, version: int) -> dict[str, Any] | None:
    """Return a version's record: `book`, `author`, `note`, `at_ms`, `version`, and `text` if it was written in YAML."""
    value = store.read([keys.rules(version)])[0]
    return None if value is None else dict(orjson.loads(value))


def read_book(store: RowReader, version: int) -> Compiled:
    """Return a version, ready to use; an empty book when there is none. Raises BadBook."""
    record = read_record(store, version) if version else None
    return compiled(record["book"], version) if record else Compiled(Book())


def plain(book: Book) -> dict[str, Any]:
    """Return a book as the log and Redis hold it."""
    return book.model_dump(mode="json", exclude_defaults=True)


def text_of(record: Mapping[str, Any]) -> str:
    """Return a version as YAML that can be edited and put: as it was written, if it was; empty for an empty book."""
    return record.get("text") or yaml_of(record["book"])


def yaml_of(document: dict[str, Any]) -> str:
    """Return a book in plain data as YAML; empty for an empty book."""
    if "rules" in document:  # as people write them
        rules = [{"id": rule["id"], "action": rule["action"], **rule} for rule in document["rules"]]
        document = {**document, "rules": rules}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120) if document else ""


def kept_text(body: bytes) -> str:
    """Return the text of a book that is kept beside it, for its comments; empty for JSON, and for a long one."""
    with suppress(orjson.JSONDecodeError):
        orjson.loads(body)
        return ""
    with suppress(UnicodeDecodeError):
        return body.decode("utf-8-sig") if len(body) <= MOST_TEXT else ""
    return ""


def put_book(
    books: Books, book: Book, author: str, now_ms: int, note: str = "", based_on: int | None = None, text: str = ""
) -> int:
    """Make a book the live one; return its version. Raises what `Books.put` raises."""
    return books.put(plain(book), author, now_ms, note, based_on, text)


def history(store: RowReader, most: int = 50) -> list[dict[str, Any]]:
    """Return the records of the newest versions without their texts, newest first."""
    newest = newest_version(store)
    records = (read_record(store, version) for version in range(newest, max(newest - most, 0), -1))
    return [without_text(record) for record in records if record is not None]


def without_text(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record for programs, which need no comments."""
    return {name: value for name, value in record.items() if name != "text"}
