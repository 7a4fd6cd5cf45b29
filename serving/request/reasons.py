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
    "buy_again_after": {
        "en": "you buy it about every {interval_days} days",
        "de": "Sie kaufen es etwa alle {interval_days} Tage",
    },
    "matches_affinity": {"en": "because you like {value}", "de": "weil Sie {value} mögen"},
    "matches_price": {"en": "in the price range you usually choose", "de": "in der Preislage, die Sie meist wählen"},
    "matches_taste": {"en": "matches what you usually choose", "de": "passt zu dem, was Sie sonst wählen"},
    "new_arrival": {"en": "new in the shop", "de": "neu im Angebot"},
    "promoted": {"en": "recommended by the shop", "de": "Empfehlung des Hauses"},
    "exploration": {"en": "something you may not know yet", "de": "etwas, das Sie vielleicht noch nicht kennen"},
    "fallback": {"en": "popular lately", "de": "zuletzt beliebt"},
}


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
    shown = {**args, **(titles or {})}
    key = code
    if code == "buy_again" and "interval_days" in args:
        key = "buy_again_after"
    elif code == "matches_affinity" and args["kind"] == "price":
        key = "matches_price"
    by_language = TEXTS[key]
    return Reason(code, args, by_language.get(lang, by_language["en"]).format(**shown))
