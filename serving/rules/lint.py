"""Faults of a book of rules that is well formed: what contradicts itself, or can never act."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from schemas.ids import hash_id
from serving.catalogue.catalogue import Catalogue
from serving.request.budget import UNBOUNDED, Budget
from serving.request.columns import Mask
from serving.rules.book_errors import BookError, bad_book
from serving.rules.condition_values import never_in_a_week, texts_of, unknown_item_value, unknown_request_value
from serving.rules.experiments import Experiment
from serving.rules.item_filter import Part, hidden, rule_mask
from serving.rules.model import Book, Boost, Exclude, Include, Limiting, Pin, Promote, Rule

NO_LINES: Mapping[str, int] = {}
MOST_HIDDEN = 0.8
"""Share of the catalogue; a rule that leaves out as much is pointed out."""


@dataclass(frozen=True)
class Finding:
    """One fault of a rule or experiment: `error` contradicts, `warning` is without effect; `line`: 0 if not known."""

    rule: str
    level: str
    message: str
    field: str = ""
    line: int = 0


def refuse_failing(book: Book, catalogue: Catalogue, budget: Budget = UNBOUNDED) -> None:
    """Raise BadBook, naming the rule, where one cannot be evaluated over this catalogue. Raises TooMuch."""
    for rule in book.rules:
        _, failed = _masks([rule], catalogue, budget)
        if failed:
            raise bad_book([BookError(0, f"rule {rule.id}", "", failed[0].message)])


def refuse_errors(findings: Sequence[Mapping[str, Any]]) -> None:
    """Raise BadBook with the errors among the findings of `lint`."""
    errors = [
        BookError(one["line"], f"rule {one['rule']}", one["field"], one["message"])
        for one in findings if one["level"] == "error"
    ]  # fmt: skip
    if errors:
        raise bad_book(errors)


def _masks(rules: list[Rule], catalogue: Catalogue, budget: Budget) -> tuple[dict[str, Mask], list[Finding]]:
    """Return what each rule is about, nothing where that cannot be evaluated, which is a fault."""
    masks, found = dict[str, Mask](), []
    for rule in rules:
        budget.spend(len(catalogue))
        try:
            masks[rule.id] = rule_mask(rule, Part(catalogue))
        except Exception as error:
            masks[rule.id] = np.zeros(len(catalogue), np.bool_)
            found.append(Finding(rule.id, "error", f"cannot be evaluated: {type(error).__name__}: {error}"))
    return masks, found


def lint(
    book: Book, catalogue: Catalogue, now_ms: int, budget: Budget = UNBOUNDED, lines: Mapping[str, int] = NO_LINES
) -> list[dict[str, Any]]:
    """Return what is wrong with a book over this catalogue at a time, by rule. Raises TooMuch.

    `lines`: where rules and experiments begin in the book's text (`serving.rules.book_store.lines_of`).
    """
    rules = [rule for rule in book.rules if rule.enabled]
    masks, found = _masks(rules, catalogue, budget)
    for rule in rules:
        values = _values(rule, catalogue, book)
        explained = any(finding.field == "where" for finding in values)
        found += values + _alone(rule, masks[rule.id], catalogue, now_ms, explained)
    lasting = [rule for rule in rules if not _is_over(rule, now_ms)]
    for n, rule in enumerate(lasting):
        for other in lasting[n + 1 :]:
            budget.spend()
            if _meet(rule, other):
                found += _together(rule, other, masks, catalogue)
    found += _experiments(book, now_ms)
    return [{**asdict(finding), "line": lines.get(finding.rule, 0)} for finding in found]


def unmeasured(book: Book, impressions_share: float) -> list[dict[str, Any]]:
    """Return warnings about experiments that no report can be made of, as no impressions are written."""
    message = "nothing is measured: HEADRACE_IMPRESSIONS_SHARE is 0, so that no impressions are written"
    running = [] if impressions_share else [one for one in book.experiments if one.enabled]
    return [asdict(Finding(one.id, "warning", message)) for one in running]


def _values(rule: Rule, catalogue: Catalogue, book: Book) -> list[Finding]:
    """Return warnings about values that nothing has; none over an empty catalogue, which has no value at all."""
    if not len(catalogue):
        return []
    found, where = [], getattr(rule, "where", "")
    for use in texts_of(where) if where else ():
        found.append(("where", unknown_item_value(use, catalogue)))
    for use in texts_of(rule.when) if rule.when else ():
        found.append(("when", unknown_request_value(use, catalogue, book)))
    return [Finding(rule.id, "warning", message, field) for field, message in found if message]


def _experiments(book: Book, now_ms: int) -> list[Finding]:
    found = []
    running = [one for one in book.experiments if one.enabled]
    for n, one in enumerate(running):
        if _is_over(one, now_ms):
            found.append(Finding(one.id, "warning", f"ended on {one.end:%Y-%m-%d %H:%M} UTC"))
        for other in running[:n]:
            apart = one.placements and other.placements and not set(one.placements) & set(other.placements)
            both = {name for arm in one.arms for name in arm.changes} & {name for a in other.arms for name in a.changes}
            if both and not apart:
                message = f"sets {', '.join(sorted(both))} as {other.id} does, which is first and wins"
                found.append(Finding(one.id, "warning", message))
    return found


def _alone(rule: Rule, mask: Mask, catalogue: Catalogue, now_ms: int, explained: bool) -> list[Finding]:
    """Return faults of one rule; `explained`: why no item passes its `where` is said already."""
    found = []
    if _is_over(rule, now_ms):
        found.append(Finding(rule.id, "warning", f"ended on {rule.end:%Y-%m-%d %H:%M} UTC"))
    if rule.when and (never := never_in_a_week(rule.when)):
        found.append(Finding(rule.id, "warning", f"{never}, at no hour (0 to 23) of any weekday (0 to 6)", "when"))
    if isinstance(rule, Include | Exclude | Boost | Promote):
        n = int(mask.sum())
        if n == 0 and not explained:
            found.append(Finding(rule.id, "warning", f"no item passes {rule.where!r}"))
        elif n and n == len(catalogue) and isinstance(rule, Exclude):
            found.append(Finding(rule.id, "error", "leaves out every item"))
    if isinstance(rule, Limiting) and not (rule.when or rule.placements) and len(catalogue):
        n = int(hidden(rule, mask).sum())
        if MOST_HIDDEN * len(catalogue) <= n < len(catalogue):
            found.append(Finding(rule.id, "warning", f"leaves out {n:,} of {len(catalogue):,} items, everywhere"))
    if isinstance(rule, Pin):
        for item in rule.items:
            known = catalogue.get(hash_id(item))
            if known is None:
                found.append(Finding(rule.id, "error", f"pins {item}, which is not in the catalogue"))
            elif known.gone:
                found.append(Finding(rule.id, "error", f"pins {item}, which is gone"))
            elif known.stock == 0:
                found.append(Finding(rule.id, "warning", f"pins {item}, which is out of stock"))
    return found


def _is_over(one: Rule | Experiment, now_ms: int) -> bool:
    return one.end is not None and one.end.timestamp() * 1000 <= now_ms


def _meet(rule: Rule, other: Rule) -> bool:
    """Return whether two rules can act on the same request, judging by places, times and groups."""
    if rule.group and rule.group == other.group:
        return False
    if rule.placements and other.placements and not set(rule.placements) & set(other.placements):
        return False
    starts = max((r.start for r in (rule, other) if r.start), default=None)
    ends = min((r.end for r in (rule, other) if r.end), default=None)
    return starts is None or ends is None or starts < ends


def _together(rule: Rule, other: Rule, masks: dict[str, Mask], catalogue: Catalogue) -> list[Finding]:
    found = []
    for a, b in ((rule, other), (other, rule)):
        if isinstance(b, Limiting):
            found += _hidden(a, masks[a.id], b, hidden(b, masks[b.id]), catalogue)
    if isinstance(rule, Pin) and isinstance(other, Pin):
        wanted = [range(pin.position, pin.position + len(pin.items)) for pin in (rule, other)]
        both = sorted(set(wanted[0]) & set(wanted[1]))
        if both:
            first = min(rule, other, key=lambda pin: (-pin.priority, pin.id))
            message = f"wants position {both[0]} as {rule.id} does; {first.id} gets it"
            found.append(Finding(other.id, "warning", message))
    if isinstance(rule, Boost) and isinstance(other, Boost) and (rule.factor > 1) != (other.factor > 1):
        n = int((masks[rule.id] & masks[other.id]).sum())
        if n:
            message = f"buries {n} items that {rule.id} boosts, or the other way round"
            found.append(Finding(other.id, "warning", message))
    return found


def _holds_wherever(by: Rule, rule: Rule) -> bool:
    """Return whether one rule acts on every request that another acts on, judging by places and conditions."""
    everywhere = not by.placements or (bool(rule.placements) and set(rule.placements) <= set(by.placements))
    return everywhere and by.when in ("", rule.when)


def _hidden(rule: Rule, mask: Mask, by: Rule, out: Mask, catalogue: Catalogue) -> list[Finding]:
    """Return what is left of a rule when the items in `out` are left out by another one."""
    if isinstance(rule, Pin):
        rows = [catalogue.row_of(hash_id(item)) for item in rule.items]
        gone = [catalogue.ids[row] for row in rows if row >= 0 and out[row]]
        level = "error" if _holds_wherever(by, rule) else "warning"
        return [Finding(rule.id, level, f"pins {item}, which {by.id} leaves out") for item in gone]
    if isinstance(rule, Include | Boost | Promote) and mask.any() and out[mask].all():
        level = "error" if not isinstance(rule, Boost) and _holds_wherever(by, rule) else "warning"
        return [Finding(rule.id, level, f"every item it is about is left out by {by.id}")]
    return []
