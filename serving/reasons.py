"""Why an item is in an answer: a code, its arguments, and a sentence."""

from dataclasses import dataclass, field

TEXTS = {
    "because_bought": {"en": "because you bought {item}", "de": "weil Sie {item} gekauft haben"},
    "because_viewed": {"en": "because you looked at {item}", "de": "weil Sie {item} angesehen haben"},
    "bought_together": {"en": "bought together with {item}", "de": "oft zusammen mit {item} gekauft"},
    "similar_to": {"en": "similar to {item}", "de": "ähnlich wie {item}"},
    "popular_in": {"en": "popular in {scope}", "de": "beliebt in {scope}"},
    "trending_in": {"en": "trending in {scope}", "de": "im Kommen in {scope}"},
    "buy_again": {"en": "you may want it again", "de": "vielleicht möchten Sie es wieder"},
    "matches_taste": {"en": "matches what you usually choose", "de": "passt zu dem, was Sie sonst wählen"},
}


@dataclass(frozen=True)
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
    shown = {**args, **(titles or {})}
    by_language = TEXTS[code]
    return Reason(code, args, by_language.get(lang, by_language["en"]).format(**shown))
