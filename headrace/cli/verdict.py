"""The verdict of `headrace status`: from what was found to one sentence, with the command that mends what is wrong."""

from datetime import UTC, datetime, timedelta
from typing import Any

from state.anchors.last_run import NextRun, TrainingRun

OVERDUE = timedelta(hours=6)
"""A training that is due for so long has no scheduler any more."""


def verdict(found: dict[str, Any], now_ms: int) -> tuple[bool, str]:
    """Return (whether all is well, one sentence that says so or what is wrong and how to mend it)."""
    wrong = [*_of_lanes(found), *_of_server(found), *_of_training(found, now_ms)]
    if wrong:
        return False, "not well: " + "; ".join(wrong)
    return True, "all is well: " + ", ".join(_going_on(found, now_ms))


def _of_lanes(found: dict[str, Any]) -> list[str]:
    live = found["live"]
    if live is None:
        return ["no flow has run yet: start `headrace up`, or `headrace flow`"]
    alone = [str(lane["lane"]) for lane in found["generations"][live]["lanes"] if lane["owner"] is None]
    if not alone:
        return []
    behind = sum(lane["lag"] for lane in found["generations"][live]["lanes"])
    return [f"no flow folds lane {', '.join(alone)} of {live} ({behind:,} messages wait): start `headrace flow`"]


def _of_server(found: dict[str, Any]) -> list[str]:
    if found.get("server_ready") is False:
        return [f"the server at {found['server']} is not ready: the terminal of `headrace up` has the reason"]
    return []


def _of_training(found: dict[str, Any], now_ms: int) -> list[str]:
    last, due = last_run(found), _next_run(found)
    wrong = []
    if last is not None and last.outcome == "failed":
        at = when(last.at_ms)
        wrong.append(f"the training of {at} failed ({last.message}): `headrace anchor` tries again")
    if due is not None and now_ms - due.at_ms > OVERDUE.total_seconds() * 1000:
        wrong.append(f"the training due at {when(due.at_ms)} did not happen: start `headrace up`, or `headrace night`")
    return wrong


def _going_on(found: dict[str, Any], now_ms: int) -> list[str]:
    live, anchor, published = found["live"], found["anchor"], found["anchor_published"]
    lanes = found["generations"][live]["lanes"]
    behind = sum(lane["lag"] for lane in lanes)
    said = [
        f"{live} is folded and {behind:,} messages behind" if behind else f"{live} is folded up to the last message"
    ]
    if anchor is None:
        said.append("no anchor yet")
    elif published not in (None, anchor):
        said.append(f"anchor {published} is about to replace {anchor}")
    else:
        said.append(f"anchor {anchor} is live")
    last, due = last_run(found), _next_run(found)
    if last is not None and last.outcome in ("refused", "too_little"):
        said.append(f"the last training published nothing ({last.message})")
    if due is not None:
        said.append(f"the next training is at {when(due.at_ms)}")
    return said


def training_lines(last: TrainingRun | None, due: NextRun | None) -> list[str]:
    """Return a line on the last training, if there was one, and one on the next, if one is due."""
    lines = []
    if last is not None:
        how = f"{last.outcome.replace('_', ' ')}, {last.version or last.message}"
        lines.append(f"last training: {when(last.at_ms)}, {last.seconds:.0f} s: {how}")
    if due is not None:
        lines.append(f"next training: {when(due.at_ms)}")
    return lines


def last_run(found: dict[str, Any]) -> TrainingRun | None:
    """Return how the last training ended, None before the first."""
    return TrainingRun(**found["training"]["last"]) if found["training"]["last"] else None


def _next_run(found: dict[str, Any]) -> NextRun | None:
    return NextRun(**found["training"]["next"]) if found["training"]["next"] else None


def when(ms: int) -> str:
    """Return a time as people write it, in UTC.

    >>> when(1_569_888_000_000)
    '2019-10-01 00:00 UTC'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
