"""A small, safe language for conditions: Python's expression syntax, a fixed vocabulary, compiled to numpy calls.

    price < 20 and brand in ["Acme", "Globex"] and under(category, "toys")
    attr.colour == "red" or contains(brand, "eco")

Over items (`ItemCondition`) the value is a mask of the whole catalogue; over a
request (`RequestCondition`) one truth value. A fact that is not known makes every
comparison with it false. Nothing is evaluated by Python itself.
"""

import ast
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from schemas.validate import is_unicode
from serving.request.columns import Mask, Text
from serving.request.condition_compiler import FLAG, ITEM_FIELDS, REQUEST_FIELDS, BadExpression, Compiler, Facts

MAX_LENGTH = 1000
REMEMBERED = 4096
"""Compiled conditions that are kept: requests repeat theirs."""


class _FewItems:
    """A catalogue of no item, or of one: what a condition must be able to stand."""

    def __init__(self, n: int) -> None:
        self._n = n

    def number(self, name: str) -> Any:
        return np.ones(self._n)

    def text(self, name: str) -> Text:
        return Text(np.ones(self._n, np.int32), ["", "1"])


class _SomeRequest:
    """A request that has a value for every fact."""

    def number(self, name: str) -> Any:
        return 1

    def text(self, name: str) -> str:
        return "1"

    def likes(self, name: str) -> bool:
        return True


def _hint(source: str) -> str:
    """Return what may be meant by a source that is no Python expression, as the end of a sentence."""
    for wrong, right in (("&&", "and"), ("||", "or"), (" AND ", "and"), (" OR ", "or"), ("NOT ", "not"), ("<>", "!=")):
        if wrong in source:
            return f"; write `{right}` for `{wrong.strip()}`"
    return "; write == to compare" if re.search(r"[^=!<>]=[^=]", source) else ""


@lru_cache(REMEMBERED)
def _compiled(source: str, of_items: bool) -> Callable[[Any], Any]:
    """Return what evaluates a condition; it has been evaluated once. Raises BadExpression."""
    if len(source) > MAX_LENGTH:
        raise BadExpression(f"is longer than {MAX_LENGTH} characters")
    if not is_unicode(source):
        raise BadExpression("is not valid Unicode")
    try:
        tree = ast.parse(source.strip(), mode="eval")
        part = Compiler(ITEM_FIELDS if of_items else REQUEST_FIELDS, of_items).compile(tree.body)
    except BadExpression:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadExpression(f"is no expression: {getattr(error, 'msg', error)}{_hint(source)}") from None
    if part.kind != FLAG:
        raise BadExpression(f"is a {part.kind}, not a condition")
    try:
        for n in (0, 1) if of_items else ():
            np.broadcast_to(np.asarray(part.value(_FewItems(n)), np.bool_), (n,))
        if not of_items:
            bool(part.value(_SomeRequest()))
    except Exception as error:  # whatever it is: at an answer it would be worse
        raise BadExpression(f"cannot be evaluated: {type(error).__name__}: {error}") from None
    return part.value


class ItemCondition:
    """A condition over items. Raises BadExpression."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._value = _compiled(source, True)

    def mask(self, catalogue: Facts, n: int) -> Mask:
        """Return which of the catalogue's n items pass."""
        mask: Mask = np.broadcast_to(np.asarray(self._value(catalogue), np.bool_), (n,))
        return mask


class RequestCondition:
    """A condition over a request and its user. Raises BadExpression."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._value = _compiled(source, False)

    def holds(self, facts: Facts) -> bool:
        """Return whether a request fulfils it."""
        return bool(self._value(facts))
