"""How the last training of an anchor ended: a record in Redis, written by the trainer, read by whoever looks.

headrace:anchor:run     the record (JSON)
headrace:anchor:night   when the scheduler trains next (JSON)
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from state.store.contract import RowReader, Store

ANCHOR_RUN = b"headrace:anchor:run"
ANCHOR_NIGHT = b"headrace:anchor:night"
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
    store.write({ANCHOR_RUN: run.model_dump_json().encode()})


def read_last_run(store: RowReader) -> TrainingRun | None:
    """Return how the last training ended, None before the first."""
    value = store.read([ANCHOR_RUN])[0]
    return TrainingRun.model_validate_json(value) if value else None


def write_next_run(store: Store, run: NextRun | None) -> None:
    """Record when a scheduler trains next; None: it has stopped."""
    store.write({ANCHOR_NIGHT: run.model_dump_json().encode() if run else None})


def read_next_run(store: RowReader) -> NextRun | None:
    """Return when a scheduler trains next, None where none is at work."""
    value = store.read([ANCHOR_NIGHT])[0]
    return NextRun.model_validate_json(value) if value else None
