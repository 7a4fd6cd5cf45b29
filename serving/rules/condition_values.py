"""Values in conditions that nothing has: a brand that no item is of, a country that is no code, with a guess."""

import ast
from collections.abc import Iterator
from functools import lru_cache
from gettext import NullTranslations, translation
from typing import NamedTuple

import pycountry

from schemas.similar_names import allowed, did_you_mean
from serving.catalogue.catalogue import Catalogue
from serving.request.columns import Text
from serving.request.condition_compiler import TEXT_TESTS
from serving.request.conditions import RequestCondition
from serving.rules.model import Book

TEXT_FIELDS = ("brand", "category", "seller")
LANGUAGES = ("de", "fr", "es", "it")
"""In which names of countries are understood, besides English."""
MOST_SHOWN = 10


class TextUse(NamedTuple):
    """A text that a condition compares a field with; `test` is `==`, or the name of a function."""

    field: str
    test: str
    text: str


def texts_of(condition: str) -> Iterator[TextUse]:
    """Yield the texts in quotes of a condition that compiles.

    >>> list(texts_of('brand == "Ours" and likes("toys")'))
    [TextUse(field='brand', test='==', text='Ours'), TextUse(field='', test='likes', text='toys')]
    """
    for node in ast.walk(ast.parse(condition.strip(), mode="eval")):
        if isinstance(node, ast.Compare):
            for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
                listed = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else [right]
                for one in listed:
                    if _field(left) and isinstance(one, ast.Constant) and isinstance(one.value, str):
                        yield TextUse(_field(left), "==", one.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            last = node.args[-1] if node.args else None
            if isinstance(last, ast.Constant) and isinstance(last.value, str):
                yield TextUse(_field(node.args[0]), node.func.id, last.value)


class _Moment(NamedTuple):
    """Facts of an hour of a weekday."""

    hour: float
    weekday: float

    def number(self, name: str) -> float:
        return self.hour if name == "hour" else self.weekday

    def text(self, name: str) -> str:
        return ""

    def likes(self, word: str) -> bool:
        return False


MOMENTS = [_Moment(hour, weekday) for hour in range(24) for weekday in range(7)]


def never_in_a_week(condition: str) -> str:
    """Return the first comparison of hours or weekdays that never holds; empty where there is none.

    >>> never_in_a_week('hour > 24 and country == "DE"'), never_in_a_week("weekday in [5, 6]")
    ('hour > 24 never holds', '')
    """
    for node in ast.walk(ast.parse(condition.strip(), mode="eval")):
        if isinstance(node, ast.Compare):
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            text = ast.unparse(node)
            if names and names <= {"hour", "weekday"} and not any(map(RequestCondition(text).holds, MOMENTS)):
                return f"{text} never holds"
    return ""


def _field(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def unknown_item_value(use: TextUse, catalogue: Catalogue) -> str:
    """Return what is wrong with a value of an item's field, empty where some item has it."""
    if use.field.startswith("attr."):
        names = catalogue.attribute_names()
        if use.field.removeprefix("attr.") not in names:
            known = allowed(use.field.removeprefix("attr."), sorted(names)[:MOST_SHOWN], "items have")
            return f"no item has an attribute {use.field.removeprefix('attr.')}{known if names else ''}"
    elif use.field not in TEXT_FIELDS:
        return ""
    words = _words(catalogue.text(use.field))
    test = TEXT_TESTS.get(use.test, str.__eq__)
    if not use.text or any(test(word, use.text) for word in words):
        return ""
    whole = {word[:end] for word in words for end in _ends(word)} if use.test == "under" else words
    how = {"==": "is", "under": "is or lies under", "contains": "contains", "startswith": "begins with"}[use.test]
    return f"no item's {use.field} {how} {use.text!r:.80}{did_you_mean(use.text, whole)}"


def unknown_request_value(use: TextUse, catalogue: Catalogue, book: Book) -> str:
    """Return what is wrong with a value of a request's field, empty where requests may have it."""
    if use.test == "likes":
        words = _words(catalogue.text("category")) | _words(catalogue.text("brand"))
        return "" if use.text in words else f"no category or brand is {use.text!r:.80}{did_you_mean(use.text, words)}"
    if use.test == "==" and use.field == "placement" and use.text not in book.all_placements:
        return f"there is no placement {use.text!r:.80}{allowed(use.text, book.all_placements)}"
    if use.test == "==" and use.field == "country" and pycountry.countries.get(alpha_2=use.text) is None:
        code = country_code(use.text)
        guess = f"; did you mean {code}?" if code else ""
        return f"country is {use.text!r:.80}, which is no code of ISO 3166 as DE{guess}"
    return ""


def country_code(name: str) -> str:
    """Return the code of two letters of a country, by a name or other code of it; empty where it has none.

    >>> country_code("Germany"), country_code("deutschland"), country_code("usa"), country_code("de")
    ('DE', 'DE', 'US', 'DE')
    """
    return _country_codes().get(name.strip().lower(), "")


@lru_cache
def _country_codes() -> dict[str, str]:
    codes = dict[str, str]()
    languages: list[NullTranslations] = [NullTranslations()]
    languages += [translation("iso3166-1", pycountry.LOCALES_DIR, [one], fallback=True) for one in LANGUAGES]
    for country in pycountry.countries:
        names = [
            country.alpha_3,
            country.name,
            getattr(country, "common_name", ""),
            getattr(country, "official_name", ""),
        ]
        for name in filter(None, names):
            for language in languages:
                codes.setdefault(language.gettext(name).lower(), country.alpha_2)
    return {**codes, **{country.alpha_2.lower(): country.alpha_2 for country in pycountry.countries}, "uk": "GB"}


def _words(column: Text) -> set[str]:
    return {word for word in column.words if word}


def _ends(path: str) -> list[int]:
    """Return where the levels of a category path end."""
    return [place for place, sign in enumerate(path) if sign == "/"] + [len(path)]
