"""Books of rules in Redis: versions that stay, one that is live, and who put it there.

    {headrace:rules}positions   {"book": version of the live book}   the pointer, as a lane's positions
    {headrace:rules}<version>   the book, who put it there, when and why (JSON)

A put is a commit on top of the version its author saw: of two at a time one is refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog
import yaml
from pydantic import ValidationError

from serving.rules.acting import RULE_FAILURES, Compiled
from serving.rules.model import Book
from state.rows import keys
from state.store.contract import RowReader, Store, decode_positions

MAX_BYTES = 1 << 20
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is built in: ten times as fast."""
ALIASES = re.compile(rb"(?:^|[\s\[{,:-])\*[\w-]", re.MULTILINE)

log = structlog.get_logger()


class BadBook(ValueError):
    """The text is no book of rules; `field` names the place."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def parse_book(text: str | bytes) -> Book:
    """Return the book in a YAML or JSON text. Raises BadBook."""
    if len(text) > MAX_BYTES:
        raise BadBook("book", f"is larger than {MAX_BYTES} bytes")
    try:
        if _has_aliases(text):  # a few hundred bytes of them become gigabytes
            raise BadBook("book", "YAML aliases (*name) are not taken; write out what they stand for")
        document = yaml.load(text, LOADER)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadBook("book", f"is no YAML or JSON: {error}") from None
    return to_book(document)


def to_book(document: Any) -> Book:
    """Return the book in plain data. Raises BadBook."""
    try:
        return Book.model_validate({} if document is None else document)
    except ValidationError as error:
        first = error.errors()[0]
        named = _rule_named(document, first["loc"])
        raise BadBook(".".join(str(part) for part in first["loc"]) or "book", named + first["msg"]) from None


def _rule_named(document: Any, loc: tuple[int | str, ...]) -> str:
    """Return the beginning of a message about a rule of a document."""
    match loc:
        case ("rules", int(n), *_) if isinstance(rule := document["rules"][n], dict):
            return f"rule {str(rule.get('id', n))!r:.70}: "
        case _:
            return ""


def _has_aliases(text: str | bytes) -> bool:
    """Return whether a YAML text repeats parts of itself. Raises YAMLError."""
    data = text.encode() if isinstance(text, str) else text
    if ALIASES.search(data) is None:  # nearly always; conditions multiply by the same sign
        return False
    return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, LOADER))


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


def load_book(path: Path) -> Book:
    """Return the book in a file. Raises BadBook."""
    try:
        return parse_book(path.read_bytes())
    except OSError as error:
        raise BadBook(str(path), error.strerror or "cannot be read") from None


def live_version(store: RowReader) -> int:
    """Return the number of the live book, 0 when there is none."""
    return decode_positions(store.read([keys.positions(keys.RULES)])[0]).get("book", 0)


def newest_version(store: RowReader) -> int:
    """Return the number of the newest book, 0 when there is none."""
    return decode_positions(store.read([keys.positions(keys.RULES)])[0]).get("newest", 0)


def read_record(store: RowReader, version: int) -> dict[str, Any] | None:
    """Return a version's record: `book`, `author`, `note`, `at_ms`, `version`."""
    value = store.read([keys.rules(version)])[0]
    return None if value is None else dict(orjson.loads(value))


def read_book(store: RowReader, version: int) -> Compiled:
    """Return a version, ready to use; an empty book when there is none. Raises BadBook."""
    record = read_record(store, version) if version else None
    return compiled(record["book"], version) if record else Compiled(Book())


def put_book(store: Store, book: Book, author: str, now_ms: int, note: str = "") -> int:
    """Make a book the live one; return its version. Raises Fenced when another was put meanwhile."""
    at = store.positions(keys.RULES)
    version = at.get("newest", 0) + 1
    record = {
        "version": version, "author": author, "note": note, "at_ms": now_ms,
        "book": book.model_dump(mode="json", exclude_defaults=True),
    }  # fmt: skip
    store.commit(keys.RULES, at, {"book": version, "newest": version}, {keys.rules(version): orjson.dumps(record)})
    return version


def history(store: Store, most: int = 50) -> list[dict[str, Any]]:
    """Return the records of the newest versions, newest first."""
    newest = newest_version(store)
    records = (read_record(store, version) for version in range(newest, max(newest - most, 0), -1))
    return [record for record in records if record is not None]
