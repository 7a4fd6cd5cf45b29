"""From the syntax tree of a condition to numpy calls; the vocabulary and its kinds are here."""

import ast
import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np

from schemas.similar_names import allowed, similar
from schemas.validate import is_unicode
from serving.request.columns import Text

NUMBER, TEXT, FLAG = "number", "text", "truth value"
ITEM_FIELDS = {"price": NUMBER, "stock": NUMBER, "margin": NUMBER, "category": TEXT, "brand": TEXT, "seller": TEXT}
REQUEST_FIELDS = {
    "country": TEXT, "placement": TEXT, "user": TEXT, "hour": NUMBER, "weekday": NUMBER, "n_events": NUMBER,
    "n_purchases": NUMBER, "n_items": NUMBER, "new_user": FLAG,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: np.divide,
}  # fmt: skip
MAX_DEPTH = 64
"""Levels of a condition: so many that it never depends on who evaluates it whether Python's stack is enough."""


class BadExpression(ValueError):
    """The expression is invalid; the message has the place and the reason."""


class Facts(Protocol):
    """Values of fields: of the catalogue, or of a request.

    A compiled condition calls it once for each field it names, whenever it is evaluated. It may not block. It raises
    nothing for the fields of ITEM_FIELDS, `attr.NAME` and REQUEST_FIELDS; the caller of a condition must expect other
    errors, of numpy for instance.
    """

    def number(self, name: str) -> Any:
        """Return a number, or those of all items as float64 (n,); NaN is one that is not known."""

    def text(self, name: str) -> Any:
        """Return a text, or those of all items (`Text`); the empty one is not known."""


class _Part(NamedTuple):
    kind: str
    value: Callable[[Any], Any]
    literal: Any = None


DAYS = (
    ("monday", "montag"), ("tuesday", "dienstag"), ("wednesday", "mittwoch"), ("thursday", "donnerstag"),
    ("friday", "freitag"), ("saturday", "samstag", "sonnabend"), ("sunday", "sonntag"),
)  # fmt: skip


def day_of(name: str) -> int | None:
    """Return the number of a day of the week, None where it is none.

    >>> day_of("Monday"), day_of("Sun"), day_of("x")
    (0, 6, None)
    """
    begins = name.strip().lower().rstrip(".")
    found = [day for day, names in enumerate(DAYS) if len(begins) > 1 and any(one.startswith(begins) for one in names)]
    return found[0] if len(found) == 1 else None


def under(path: str, above: str) -> bool:
    """Return whether a category path is `above` or lies below it.

    >>> under("toys/cars", "toys"), under("toyshop", "toys")
    (True, False)
    """
    return (path + "/").startswith(above.rstrip("/") + "/")


FUNCTIONS = ("under", "contains", "startswith", "number", "likes")
TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "under": under,
    "contains": lambda text, part: part.lower() in text.lower(),
    "startswith": lambda text, part: text.lower().startswith(part.lower()),
}


def _test_text(text: Any, test: Callable[[str], bool]) -> Any:
    """Apply a test to a text, or to every distinct word of a column; an unknown text fails it."""
    if isinstance(text, Text):
        passes = np.array([bool(word) and test(word) for word in text.words], np.bool_)
        return passes[text.codes]
    return bool(text) and test(text)


class Compiler:
    """Compiles the nodes of one condition, and nothing that the vocabulary does not have."""

    def __init__(self, fields: dict[str, str], of_items: bool) -> None:
        self._fields, self._of_items = fields, of_items
        self._depth = 0

    def compile(self, node: ast.AST) -> _Part:
        """Return what evaluates a node, and the kind of its value. Raises BadExpression."""
        method = getattr(self, "_" + type(node).__name__.lower(), None)
        if method is None:
            raise self._error(node, f"{type(node).__name__} cannot be used here")
        if self._depth == MAX_DEPTH:
            raise self._error(node, f"is nested more than {MAX_DEPTH} levels deep")
        self._depth += 1
        part: _Part = method(node)
        self._depth -= 1
        return part

    def _error(self, node: ast.AST, message: str) -> BadExpression:
        return BadExpression(f"at {getattr(node, 'col_offset', 0) + 1}: {message}")

    def _want(self, node: ast.AST, kind: str) -> _Part:
        part = self.compile(node)
        if part.kind != kind:
            raise self._error(node, f"is a {part.kind}, but a {kind} is needed")
        return part

    def _literal(self, node: ast.AST) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            value: str = self._constant(node).literal
            return value
        like = f", as {str(node.value)!r}" if isinstance(node, ast.Constant) else ""
        like = f", as {node.id!r}" if isinstance(node, ast.Name) else like
        raise self._error(node, f"must be a text in quotes{like}")

    def _constant(self, node: ast.Constant) -> _Part:
        value: Any = node.value
        kind = {bool: FLAG, int: NUMBER, float: NUMBER, str: TEXT}.get(type(value))
        if kind is None:
            raise self._error(node, f"{value!r} cannot be used here")
        if kind == NUMBER:
            value = self._number(node, value)
        elif kind == TEXT and not is_unicode(value):
            raise self._error(node, f"{value!r:.60} is not valid Unicode")
        return _Part(kind, lambda facts: value, value)

    def _number(self, node: ast.AST, value: float) -> float:
        """Return a number as the columns hold them."""
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(node, "the number is too large: a float64 holds up to 1.8e308")
        return number

    def _name(self, node: ast.Name) -> _Part:
        kind = self._fields.get(node.id)
        if kind is None:
            names = [*self._fields, *(["attr.NAME"] if self._of_items else [])]
            quoted = "" if similar(node.id, names) else f', or "{node.id}" in quotes if it is a text'
            raise self._error(node, f"{node.id!r} is not known{allowed(node.id, names)}{quoted}")
        name = node.id
        return _Part(kind, (lambda facts: facts.text(name)) if kind == TEXT else (lambda facts: facts.number(name)))

    def _attribute(self, node: ast.Attribute) -> _Part:
        if not (self._of_items and isinstance(node.value, ast.Name) and node.value.id == "attr"):
            raise self._error(node, "only attr.NAME has a dot, in conditions over items")
        name = "attr." + node.attr
        return _Part(TEXT, lambda facts: facts.text(name))

    def _boolop(self, node: ast.BoolOp) -> _Part:
        parts = [self._want(value, FLAG).value for value in node.values]
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        # Not combine.reduce: some parts are masks, and others single truth values.
        return _Part(FLAG, lambda facts: reduce(combine, [part(facts) for part in parts]))

    def _unaryop(self, node: ast.UnaryOp) -> _Part:
        if isinstance(node.op, ast.Not):
            part = self._want(node.operand, FLAG).value
            return _Part(FLAG, lambda facts: np.logical_not(part(facts)))
        if isinstance(node.op, ast.USub):
            part = self._want(node.operand, NUMBER).value
            return _Part(NUMBER, lambda facts: -part(facts))
        raise self._error(node, "this sign cannot be used here")

    def _binop(self, node: ast.BinOp) -> _Part:
        apply = ARITHMETIC.get(type(node.op))
        if apply is None:
            raise self._error(node, "only + - * / can be used")
        left, right = self._want(node.left, NUMBER).value, self._want(node.right, NUMBER).value

        def value(facts: Facts) -> Any:
            with np.errstate(all="ignore"):
                return apply(left(facts), right(facts))

        return _Part(NUMBER, value)

    def _compare(self, node: ast.Compare) -> _Part:
        tests, left = [], node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            tests.append(self._one_comparison(left, op, right))
            left = right
        return _Part(FLAG, lambda facts: reduce(np.logical_and, [test(facts) for test in tests]))

    def _one_comparison(self, left: ast.AST, op: ast.cmpop, right: ast.AST) -> Callable[[Any], Any]:
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, right, isinstance(op, ast.NotIn))
        compare = COMPARISONS.get(type(op))
        if compare is None:
            raise self._error(left, "only == != < <= > >= in, not in can be used")
        part = self.compile(left)
        if part.kind == TEXT:
            word = self._literal(right)
            return lambda facts: _test_text(part.value(facts), lambda text: bool(compare(text, word)))
        self._refuse_text(left, right)
        a, b = self._want(left, NUMBER).value, self._want(right, NUMBER).value

        def value(facts: Facts) -> Any:
            x, y = a(facts), b(facts)
            return compare(x, y) & ~(np.isnan(x) | np.isnan(y))

        return value

    def _refuse_text(self, left: ast.AST, right: ast.AST) -> None:
        """Raise BadExpression with the number to write where a number is compared with a text."""
        if not (isinstance(left, ast.Name) and isinstance(right, ast.Constant) and isinstance(right.value, str)):
            return
        if left.id == "weekday":
            day = day_of(right.value)
            guess = "" if day is None else f"; {right.value} is {day}"
            raise self._error(right, f"weekday is a number from 0 (Monday) to 6 (Sunday){guess}")
        if self._fields.get(left.id) == NUMBER:
            raise self._error(right, f"{left.id} is a number, which has no quotes; got {right.value!r:.60}")

    def _membership(self, left: ast.AST, right: ast.AST, negated: bool) -> Callable[[Any], Any]:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self._error(right, "must be a list")
        for element in right.elts:
            self._refuse_text(left, element)
        part, members = self.compile(left), [self.compile(element) for element in right.elts]
        if any(member.literal is None or member.kind != part.kind for member in members) or part.kind == FLAG:
            raise self._error(right, f"must list {part.kind}s")
        values = {member.literal for member in members}
        if part.kind == TEXT:
            return lambda facts: _test_text(part.value(facts), lambda text: (text in values) != negated)
        return lambda facts: (np.isin(part.value(facts), list(values)) != negated) & ~np.isnan(part.value(facts))

    def _call(self, node: ast.Call) -> _Part:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords:
            raise self._error(node, "arguments have no names here")
        if name in TEXT_TESTS and len(node.args) == 2:
            part, argument, test = self._want(node.args[0], TEXT), self._literal(node.args[1]), TEXT_TESTS[name]
            return _Part(FLAG, lambda facts: _test_text(part.value(facts), lambda text: test(text, argument)))
        if name == "number" and self._of_items and len(node.args) == 1:
            text = self._want(node.args[0], TEXT)
            if text.literal is not None:
                raise self._error(
                    node.args[0], f"needs a field without quotes, number(attr.NAME); got {text.literal!r:.60}"
                )
            return _Part(NUMBER, lambda facts: _numbers(text.value(facts)))
        if name == "likes" and not self._of_items and len(node.args) == 1:
            liked = self._literal(node.args[0])
            return _Part(FLAG, lambda facts: facts.likes(liked))
        meant = similar(name, FUNCTIONS)
        raise self._error(
            node, (f"{name} is not known; did you mean {meant}? " if meant and meant != name else "")
            + "there are under(TEXT, 'path'), contains(TEXT, 'part'), startswith(TEXT, 'part') and "
            + ("number(attr.NAME)" if self._of_items else "likes('category or brand')"),
        )  # fmt: skip


def _numbers(text: Text) -> Any:
    values = np.full(len(text.words), np.nan)
    for code, word in enumerate(text.words):
        try:
            values[code] = float(word)
        except ValueError:
            continue
    return values[text.codes]
