"""From what pydantic finds wrong with a book to errors that say what is allowed, with an example and a guess."""

import re
from typing import Any

from pydantic import ValidationError

from schemas.similar_names import allowed
from serving.rules.book_errors import BookError, Path
from serving.rules.book_text import QUOTES, BookText
from serving.rules.hints import ACTIONS, model_at
from serving.rules.model import PLACEMENTS
from serving.rules.references import wrong_references

QUOTED = re.compile(r"'([^']+)'")


def errors_of(text: BookText, error: ValidationError) -> list[BookError]:
    """Return all that is wrong with a book: its fields, and names that it refers to and lacks."""
    found = list[BookError]()
    places = [(_without_tag(one["loc"]), one) for one in error.errors(include_url=False)]
    for path, one in places:
        if one["type"] == "too_short" and any(path == other[: len(path)] != other for other, _ in places):
            continue  # it holds something, which is wrong
        if path or one["type"] != "value_error":  # those of the whole book follow
            found.append(_error(text, path, _message(text.data, path, one)))
    found += [_error(text, path, message) for path, message in wrong_references(text.data, PLACEMENTS)]
    return found or [BookError(0, "", "book", str(error))]


def _error(text: BookText, path: Path, message: str) -> BookError:
    name, rest = _named(text.data, path)
    return BookError(text.line(path), name, ".".join(map(str, rest)), message)


def _named(data: Any, path: Path) -> tuple[str, Path]:
    """Return the name of the rule, placement or experiment at a path, and the path inside it."""
    match path:
        case ("rules" | "experiments" as kind, int(n), *rest):
            one = data[kind][n]
            name = str(one.get("id", n + 1)) if isinstance(one, dict) else str(n + 1)
            return f"{kind[:-1]} {name}"[:90], tuple(rest)
        case ("placements", str(name), *rest):
            return f"placement {name}"[:90], tuple(rest)
        case _:
            return "", path


def _without_tag(loc: Path) -> Path:
    """Return a place without the action that pydantic puts into those of rules, and without marks of keys."""
    path = tuple(step for step in loc if step != "[key]")
    if len(path) > 2 and path[0] == "rules" and path[2] in ACTIONS:
        return (*path[:2], *path[3:])
    return path


def _message(data: Any, path: Path, one: Any) -> str:
    what, model, example = model_at(data, path)
    name, kind, ctx = str(path[-1]) if path else "", one["type"], one.get("ctx", {})
    if kind == "extra_forbidden":
        if ")" in name or name.count('"') % 2:
            return f"is no field: a comma inside {{ }} ends a value; {QUOTES}"
        return f"there is no such field{allowed(name, model.model_fields, f'{what} has')}"
    if kind == "missing":
        return f"is missing in {what}, as {example}"
    if kind == "union_tag_not_found":
        return f"`action` is missing; it is one of {', '.join(ACTIONS)}, as {example}"
    if kind == "union_tag_invalid":
        tag = str(ctx["tag"])
        return f"there is no action {tag!r:.60}{allowed(tag, ACTIONS)}"
    if kind in ("model_type", "model_attributes_type", "dict_type", "tuple_type"):
        return f"is a {_kind(one['input'])}, where {_wanted(kind)} is needed, as {example}"
    if kind == "literal_error":
        choices = QUOTED.findall(ctx["expected"])
        return f"cannot be {one['input']!r:.60}{allowed(str(one['input']), choices, 'it is one of')}"
    if kind == "string_pattern_mismatch":
        proper = re.sub(r"[^a-z0-9_-]+", "-", str(one["input"]).lower()).strip("-_")[:64]
        return f"{one['input']!r:.60} has other signs than small letters, digits, - and _; write {proper or 'a-name'}"
    if kind == "value_error":
        return str(ctx["error"])
    got = f"; got {one['input']!r:.60}" if isinstance(one["input"], str | int | float) else ""
    return f"{one['msg'].removeprefix('Input ')}{got}, as {example}"


def _kind(value: Any) -> str:
    names = {dict: "mapping", list: "list", str: "text", int: "number", float: "number", bool: "truth value"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _wanted(kind: str) -> str:
    return "a list" if kind == "tuple_type" else "a mapping"
