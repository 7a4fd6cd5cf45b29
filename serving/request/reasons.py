"""Why an item is in an answer: a code, its arguments, and a sentence. `REASONS` says what each code claims."""

from dataclasses import dataclass, field
from typing import NamedTuple


class ReasonCode(NamedTuple):
    """One code: what must be true of an item that carries it, its arguments, and its text by language."""

    evidence: str
    args: tuple[str, ...]
    texts: dict[str, str]


REASONS: dict[str, ReasonCode] = {
    "because_bought": ReasonCode(
        "the visitor bought `item`", ("item",),
        {"en": "because you bought {item}", "de": "weil Sie {item} gekauft haben"},
    ),
    "because_carted": ReasonCode(
        "the visitor put `item` into the cart", ("item",),
        {"en": "because you put {item} into your cart", "de": "weil Sie {item} in den Warenkorb gelegt haben"},
    ),
    "because_interested": ReasonCode(
        "the visitor put `item` on the wish list, shared it, or rated it with 3 stars or more", ("item",),
        {"en": "because you like {item}", "de": "weil Ihnen {item} gefällt"},
    ),
    "because_viewed": ReasonCode(
        "the visitor viewed or clicked `item`", ("item",),
        {"en": "because you looked at {item}", "de": "weil Sie {item} angesehen haben"},
    ),
    "bought_together": ReasonCode(
        "orders held both; said where nothing but purchases is known of the two", ("item",),
        {"en": "bought together with {item}", "de": "zusammen mit {item} gekauft"},
    ),
    "seen_together": ReasonCode(
        "sessions or orders held both", ("item",),
        {"en": "seen together with {item}", "de": "zusammen mit {item} angesehen"},
    ),
    "related_to": ReasonCode(
        "both were in sessions with the same third item", ("item",),
        {"en": "related to {item}", "de": "verwandt mit {item}"},
    ),
    "similar_to": ReasonCode(
        "same category or brand, or factors that point the same way", ("item",),
        {"en": "similar to {item}", "de": "ähnlich wie {item}"},
    ),
    "buy_again": ReasonCode(
        "the visitor bought it twice or more, at least a day apart", ("interval_days",),
        {"en": "you buy it about every {interval_days} days", "de": "Sie kaufen es etwa alle {interval_days} Tage"},
    ),
    "bought_before": ReasonCode(
        "the visitor bought it", (), {"en": "you bought it before", "de": "Sie haben es schon gekauft"}
    ),
    "carted_before": ReasonCode(
        "the visitor put it into the cart", (),
        {"en": "you put it into your cart", "de": "Sie haben es in den Warenkorb gelegt"},
    ),
    "seen_before": ReasonCode(
        "the visitor has an event of it, or the request names it in `items`", (),
        {"en": "you have seen it before", "de": "Sie haben es schon gesehen"},
    ),
    "matches_affinity": ReasonCode(
        "the visitor has an event of the same brand or category", ("kind", "value"),
        {"en": "because you looked at {value} before", "de": "weil Sie {value} schon angesehen haben"},
    ),
    "matches_price": ReasonCode(
        "three prices or more are known of the visitor, and this one is within their usual spread", ("value",),
        {"en": "in the price range you usually choose", "de": "in der Preislage, die Sie meist wählen"},
    ),
    "matches_taste": ReasonCode(
        "near what the visitor, or the request's `items`, point to; no single item of them decides", (),
        {"en": "goes with what you looked at", "de": "passt zu dem, was Sie angesehen haben"},
    ),
    "popular_in": ReasonCode(
        "it has events there, and is among those with the most", ("scope",),
        {"en": "popular in {scope}", "de": "beliebt in {scope}"},
    ),
    "trending_in": ReasonCode(
        "popularity of the last day is 1.5 times that of the last week, from a weight of 5.5 (6 views, 2 purchases)",
        ("scope",), {"en": "trending in {scope}", "de": "im Kommen in {scope}"},
    ),
    "available": ReasonCode(
        "nothing but that the shop has it", (), {"en": "in our range", "de": "aus unserem Angebot"}
    ),
    "new_arrival": ReasonCode(
        "among the half of the catalogue that came last", (), {"en": "new in the shop", "de": "neu im Angebot"}
    ),
    "promoted": ReasonCode(
        "a rule of the book put it there", ("rule",), {"en": "recommended by the shop", "de": "Empfehlung des Hauses"}
    ),
    "exploration": ReasonCode(
        "drawn at random; not among the visitor's latest 50 events", (),
        {"en": "something you may not know yet", "de": "etwas, das Sie vielleicht noch nicht kennen"},
    ),
    "fallback": ReasonCode(
        "it was on the popular list when Redis was last reached", ("kind",),
        {"en": "popular lately", "de": "zuletzt beliebt"},
    ),
}  # fmt: skip
"""Every code. An item carries one only while its evidence is there; docs/recommend.md has this table."""


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` and `args` for programs, `text` for people."""

    code: str
    args: dict[str, str] = field(default_factory=dict)
    text: str = ""


def reason(code: str, lang: str = "en", titles: dict[str, str] | None = None, **args: str) -> Reason:
    """Return the reason with its text; `titles` replaces argument values for reading.

    >>> reason("because_bought", titles={"item": "Tea"}, item="i1").text
    'because you bought Tea'
    """
    texts = REASONS[code].texts
    return Reason(code, args, texts.get(lang, texts["en"]).format(**{**args, **(titles or {})}))


def reasons_table() -> list[str]:
    """Return the lines of the documentation's table of codes."""
    head = ["| code | arguments | evidence | English text |", "| --- | --- | --- | --- |"]
    names = ((code, ", ".join(f"`{arg}`" for arg in one.args), one) for code, one in REASONS.items())
    return head + [f"| `{code}` | {args} | {one.evidence} | {one.texts['en']} |" for code, args, one in names]
