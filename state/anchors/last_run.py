"""How the last training of an anchor ended and when the next is due: records in Redis (JSON).

The trainer writes the one, the scheduler the other; `headrace status` and `headrace anchors` read both.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from state.rows import keys
from state.store.contract import RowReader, Store

Outcome = Literal["published", "refused", "too_little", "failed"]


class TrainingRun(BaseModel):
    """How a training ended. `refused` and `too_little` are no faults: the anchor before stays."""

    model_config = ConfigDict(frozen=True)

    at_ms: int
    """When it began."""
    seconds: float
    outcome: Outcome
    version: str | None = None
    message: str = ""


class NextRun(BaseModel):
    """When a scheduler trains next."""

    model_config = ConfigDict(frozen=True)

    at_ms: int
    night_at: str
    zone: str


def write_last_run(store: Store, run: TrainingRun) -> None:
    """Record how a training ended."""
    store.write({keys.ANCHOR_RUN: run.model_dump_json().encode()})


def read_last_run(store: RowReader) -> TrainingRun | None:
    """Return how the last training ended, None before the first."""
    value = store.read([keys.ANCHOR_RUN])[0]
    return TrainingRun.model_validate_json(value) if value else None


def write_next_run(store: Store, run: NextRun | None) -> None:
    """Record when a scheduler trains next; None: it has stopped."""
    store.write({keys.ANCHOR_NIGHT: run.model_dump_json().encode() if run else None})


def read_next_run(store: RowReader) -> NextRun | None:
    """Return when a scheduler trains next, None where none is at work."""
    value = store.read([keys.ANCHOR_NIGHT])[0]
    return NextRun.model_validate_json(value) if value else None
