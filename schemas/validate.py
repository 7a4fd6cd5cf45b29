"""Which decoded rows cannot be: each refusal is a reason code and a sentence."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.events import BadMessage, Columns, Kind

EARLIEST_MS = 946_684_800_000  # 2000-01-01: older is a unit mistake (seconds for milliseconds)
MAX_PRICE = 1e9
MAX_QUANTITY = 1e6

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """Bounds an event must keep."""

    max_message_bytes: int = 1 << 20
    max_future_ms: int = 3_600_000


def _checks(rows: Columns, now_ms: int, limits: Limits) -> list[tuple[str, str, Mask]]:
    kind, value = rows["kind"], rows["value"]
    bad_stars = (kind == Kind.RATING) & ~((value >= 1) & (value <= 5))
    bad_quantity = (kind == Kind.PURCHASE) & ~((value > 0) & (value <= MAX_QUANTITY))
    return [
        ("no_subject", "neither user nor session is given", rows["user"] == 0),
        ("unknown_kind", "kind is none that is known", kind == 0),
        ("empty_id", "event_id is empty", rows["event_id"] == 0),
        ("empty_id", "item is empty", (rows["item"] == 0) & (kind != Kind.SEARCH)),
        ("bad_time", "ts_ms is before 2000; it counts milliseconds", rows["ts_ms"] < EARLIEST_MS),
        (
            "future_time",
            f"ts_ms lies more than {limits.max_future_ms} ms ahead",
            rows["ts_ms"] > now_ms + limits.max_future_ms,
        ),
        ("bad_price", f"price is not within 0 and {MAX_PRICE:g}", (rows["price"] < 0) | (rows["price"] > MAX_PRICE)),
        ("bad_stars", "stars are not within 1 and 5", bad_stars),
        ("bad_quantity", f"quantity is not within 0 and {MAX_QUANTITY:g}", bad_quantity),
    ]  # fmt: skip


def refuse(rows: Columns, now_ms: int, limits: Limits) -> list[BadMessage]:
    """Return one refusal for each message that has a row which cannot be; the first reason found counts."""
    found: dict[int, BadMessage] = {}
    for reason, detail, mask in _checks(rows, now_ms, limits):
        for message in rows["message"][mask].tolist():
            found.setdefault(message, BadMessage(message, reason, detail))
    return [found[message] for message in sorted(found)]


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: half of a surrogate pair (half an emoji) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
