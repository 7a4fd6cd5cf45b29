"""Names in a book: each rule and experiment is there once, and the placements and rules that are named exist."""

from collections.abc import Collection, Iterator
from typing import Any

from schemas.similar_names import allowed, did_you_mean
from serving.rules.book_errors import Path


def wrong_references(data: Any, built_in: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Yield (place, message) of names in plain data that are there twice, or not at all; other faults are passed over.

    `built_in`: placements that exist in any case.

    >>> next(wrong_references({"rules": [{"id": "a", "placements": ["hom"]}]}, ["home"]))
    (('rules', 0, 'placements', 0), 'there is no placement hom; did you mean home? There are home')
    """
    data = _mapping(data)
    placements = {*built_in, *map(str, _mapping(data.get("placements")))}
    rules, experiments = _mappings(data.get("rules")), _mappings(data.get("experiments"))
    for kind, entries in (("rules", rules), ("experiments", experiments)):
        seen = set[str]()
        for n, one in entries:
            name = one.get("id")
            if isinstance(name, str) and name in seen:
                yield (kind, n, "id"), f"{kind[:-1]} {name} is there twice; each has an id of its own"
            seen.add(str(name))
            for k, place in enumerate(_texts(one.get("placements"))):
                if place not in placements:
                    yield (kind, n, "placements", k), f"there is no placement {place}{allowed(place, placements)}"
    ids = [str(one.get("id")) for _, one in rules]
    for n, one in experiments:
        for k, arm in _mappings(one.get("arms")):
            for m, rule in enumerate(_texts(arm.get("without_rules"))):
                if rule not in ids:
                    path = ("experiments", n, "arms", k, "without_rules", m)
                    yield path, f"there is no rule {rule} in this book{did_you_mean(rule, ids)}"


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[tuple[int, dict[Any, Any]]]:
    return [(n, one) for n, one in enumerate(value) if isinstance(one, dict)] if isinstance(value, list | tuple) else []


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []
