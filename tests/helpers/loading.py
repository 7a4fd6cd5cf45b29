"""Files as `headrace load` understands them, without a log."""

from pathlib import Path

from headrace.loading.findings import Findings
from headrace.loading.plan import Choices, make_plan, read_all
from headrace.loading.spool import Spool

NOW_MS = 1_796_083_200_000
"""2026-12-01."""
HOUR_MS = 3_600_000


def understood(path: Path, **choices: object) -> tuple[list[dict], Findings]:
    """Return (all events of a file in the order of their loading, what was found)."""
    with Spool() as spool:
        findings = read_all(make_plan(path, Choices(**choices)), spool, NOW_MS, HOUR_MS)  # type: ignore[arg-type]
        return [spooled.event for spooled in spool.events()], findings


def bare(events: list[dict]) -> list[dict]:
    """Return the events without ids that are made of their content."""
    return [{name: value for name, value in event.items() if name != "event_id"} for event in events]
