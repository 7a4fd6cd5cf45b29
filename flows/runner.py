"""The steps every driver shares: a batch of messages in, lanes folded, rows committed.

`fold` is all of them in their order; an engine that shows each as a step of its own
calls them one by one. Commits run in one background thread, so that the next batch is
decoded and folded while Redis takes the rows of the one before. Order is kept: a commit
starts only when the one before it is done, and any trouble in one drops all that follows.
"""

import time
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from flows.fold.changes import Changes, FoldStats
from flows.fold.lane import Lane
from flows.isolation import NO_MESSAGES_FAULT, fold_in_parts
from flows.log.contract import RawBatch
from flows.log.dead_letters import DeadLetters
from schemas.avro_decoder import Limits, decode
from schemas.events import BadMessage, Decoded
from schemas.registry import SchemaRegistry
from state.store.contract import Positions, Store

AGES_A_BATCH = 20
MOST_SAID = 100
log = structlog.get_logger()


@dataclass
class Report:
    """Counts of one batch, and the seconds that its stages took."""

    n_messages: int
    bad: dict[str, int]
    lanes: list[int]
    stats: list[FoldStats]
    positions: Positions
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage; `commit` is of the batch before, which ran beside this one."""
    ages_s: list[float] = field(default_factory=list)
    """From event time to commit of a few events of the batch before."""


@dataclass
class Block:
    """A batch on its way through the steps of a runner, each of which adds what it found."""

    raw: RawBatch
    behind: bool
    decoded: Decoded
    bad: list[BadMessage]
    """Refused by the decoder, their letters not written yet."""
    seconds: dict[str, float]
    refused: list[BadMessage] = field(default_factory=list)
    """Those that have their letters."""
    to_commit: list[tuple[Lane, Changes]] = field(default_factory=list)
    report: Report | None = None
    """Set when the block is folded."""


class Intake(NamedTuple):
    """Decides whether a message is an event, and where it goes if it is not."""

    registry: SchemaRegistry
    limits: Limits
    dead_letters: DeadLetters
    max_bad_in_a_row: int = 10_000
    """So many refused messages without an event between them stop the flow."""


class TooManyBadMessages(Exception):
    """Nothing but bad messages for so long that the producer or the schema must be wrong."""


def resume_positions(lanes: Sequence[Lane]) -> Positions:
    """Return where to read on: per stream, the position of the lane that is furthest behind.

    A stream that some lane has not read yet is left out, so it is read from its start.
    """
    streams = set.intersection(*(set(lane.positions) for lane in lanes)) if lanes else set()
    return {stream: min(lane.positions[stream] for lane in lanes) for stream in streams}


class Runner:
    """Folds batches into its lanes and commits them in order."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        store: Store,
        intake: Intake,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        before_erasing: Callable[[Collection[int]], None] = lambda users: None,
    ) -> None:
        """`before_erasing` is called with users, by id hash, before a commit that erases them; it may come again."""
        self.lanes = list(lanes)
        self._before_erasing = before_erasing
        self._store, self._intake = store, intake
        self._bad_in_a_row = 0
        self._now_ms = now_ms
        self._pool = ThreadPoolExecutor(1, "commit")
        self._commit: Future[float] | None = None
        self._committed_ts: list[int] = []
        self._said: set[tuple[str, str, int]] = set()
        self.committed_s = 0.0
        """Monotonic time of the last commit, 0 before the first."""

    def open(self) -> Positions:
        """Make every lane what was committed; return the positions to read from."""
        self.abandon()
        for lane in self.lanes:
            lane.open()
        return resume_positions(self.lanes)

    def fold(self, raw: RawBatch, behind: bool = False) -> Report:
        """Decode a batch, fold it into every lane and hand its rows to the commit thread.

        `behind`: many more wait, so users' vectors are left for `write_pending`.

        Raises what the commit *before* this one met (Fenced, StoreUnavailable): call
        `open` then and read again from the positions it returns.
        """
        block = self.decode(raw, behind)
        self.write_letters(block)
        report = self.apply(block)
        self.commit(block)
        return report

    def decode(self, raw: RawBatch, behind: bool = False) -> Block:
        """Return the batch as columns, beside the messages that are no events."""
        started = time.perf_counter()
        decoded = decode(raw, self._intake.registry, self._now_ms(), self._intake.limits)
        return Block(raw, behind, decoded, decoded.bad, {"decode": time.perf_counter() - started})

    def write_letters(self, block: Block) -> None:
        """Make the letters of what the decoder refused durable, if they are not yet.

        Every lane reads every message; whoever has lane 0 writes the letters, before that lane passes the messages.
        """
        if not block.bad:
            return
        started = time.perf_counter()
        if self._writes_letters:
            self._refuse(block.raw, block.bad, block.refused)
        else:
            block.refused += block.bad
        block.bad = []
        block.seconds["decode"] += time.perf_counter() - started

    @property
    def _writes_letters(self) -> bool:
        return any(lane.lane == 0 for lane in self.lanes)

    def apply(self, block: Block) -> Report:
        """Fold a block, whose letters are written, into every lane; the commit before this one is done then.

        Raises what that commit met.
        """
        started = time.perf_counter()
        raw, refused = block.raw, block.refused
        applied = [self._apply(lane, block.decoded, raw, block.behind, refused) for lane in self.lanes]
        self._watch_for_a_flood(len(raw), len(refused))
        block.to_commit = [(lane, changes) for lane, changes, _ in applied if changes is not None]
        applied_at = time.perf_counter()
        commit_s = self.drain()
        ages_s = [(self._now_ms() - ts_ms) / 1000 for ts_ms in self._committed_ts]
        self._committed_ts = []
        lanes = [lane.lane for lane in self.lanes]
        report = Report(len(raw), {}, lanes, [stats for _, _, stats in applied], raw.after, ages_s=ages_s)
        lettered = refused if self._writes_letters else [bad for bad in refused if bad.reason == "fold_failed"]
        for bad in lettered:
            report.bad[bad.reason] = report.bad.get(bad.reason, 0) + 1
        report.seconds = {
            **block.seconds,
            "apply": applied_at - started,
            "wait_for_commit": time.perf_counter() - applied_at,
            "commit": commit_s,
        }
        block.report = report
        return report

    def commit(self, block: Block) -> None:
        """Hand the rows of a folded block to the commit thread, which is free."""
        times = block.decoded.interactions["ts_ms"]
        self._committed_ts = times[:: max(len(times) // AGES_A_BATCH, 1)].tolist()[:AGES_A_BATCH]
        self._commit = self._pool.submit(self._commit_all, block.to_commit)

    @property
    def has_committed(self) -> bool:
        """Whether a commit is done whose outcome nobody has looked at: `drain` returns at once."""
        return self._commit is not None and self._commit.done()

    def _apply(
        self, lane: Lane, decoded: Decoded, raw: RawBatch, behind: bool, refused: list[BadMessage]
    ) -> tuple[Lane, Changes | None, FoldStats]:
        """Return a lane with its changes to commit and what became of the batch; None where they are committed."""
        try:
            changes = lane.apply(decoded, raw, behind)
            return lane, changes, changes.stats
        except NO_MESSAGES_FAULT:
            raise
        except Exception:  # found again, message by message
            pass
        self.drain()  # so that the store is where the batch begins
        in_a_row = self._bad_in_a_row

        def refuse(message: int, error: Exception) -> None:
            nonlocal in_a_row
            in_a_row += 1
            self._stop_a_flood(in_a_row)
            if any(bad.message == message for bad in refused):  # a product, which every lane folds
                return
            detail = f"{type(error).__name__}: {error}"[:300]
            self._refuse(raw, [BadMessage(message, "fold_failed", detail, error)], refused)

        def commit(lane: Lane, changes: Changes) -> None:
            nonlocal in_a_row
            self._write(lane, changes)
            if changes.stats.n_events or changes.stats.n_products:
                in_a_row = 0

        return lane, None, fold_in_parts(lane, decoded, raw, commit, refuse)

    def _refuse(self, raw: RawBatch, bad: list[BadMessage], refused: list[BadMessage]) -> None:
        """Write letters; log the first failure of each kind with its traceback."""
        self._intake.dead_letters.write(raw, bad, self._now_ms())
        refused += bad
        for one in bad:
            if one.error is None:
                continue
            frame = traceback.extract_tb(one.error.__traceback__)[-1]
            kind = (type(one.error).__name__, frame.filename, frame.lineno or 0)
            if kind not in self._said and len(self._said) < MOST_SAID:
                self._said.add(kind)
                log.error(
                    "a message failed and is a dead letter; more of the same are not logged", reason=one.reason,
                    stream=raw.streams[raw.stream[one.message]], offset=int(raw.offset[one.message]),
                    exc_info=one.error,
                )  # fmt: skip

    @property
    def is_idle(self) -> bool:
        """Whether no commit is under way."""
        return self._commit is None

    def drain(self) -> float:
        """Wait for the commit under way; return how long it took, in seconds."""
        commit, self._commit = self._commit, None
        return 0.0 if commit is None else commit.result()

    def commit_now(self, lane: Lane, changes: Changes) -> None:
        """Commit changes that belong to no batch (a refold), after those under way."""
        self.drain()
        self._write(lane, changes)

    @property
    def owes_vectors(self) -> bool:
        """Whether a lane has vectors to write: call `write_pending`."""
        return any(lane.owes_vectors for lane in self.lanes)

    def write_pending(self) -> None:
        """Hand one chunk of the vectors owed to the commit thread; call between batches while some are owed.

        Raises what the commit before this one met, as `fold`.
        """
        for lane in self.lanes:
            if lane.owes_vectors:
                changes = lane.write_pending()
                self.drain()
                self._commit = self._pool.submit(self._commit_all, [(lane, changes)])
                return

    def abandon(self) -> None:
        """Wait for the commit under way and ignore its outcome."""
        commit, self._commit = self._commit, None
        if commit is not None:
            commit.exception()

    def close(self) -> None:
        """Wait for the commit under way, and end its thread. Raises that commit's error."""
        try:
            self.drain()
        finally:
            self._pool.shutdown()

    def _commit_all(self, changes: list[tuple[Lane, Changes]]) -> float:
        started = time.perf_counter()
        for lane, change in changes:
            if change.erased:
                self._before_erasing(change.erased)
            self._write(lane, change)
        return time.perf_counter() - started

    def _write(self, lane: Lane, changes: Changes) -> None:
        if changes.in_parts:
            self._store.refresh(lane.prefix, changes.expected, changes.rows)
        else:
            self._store.commit(lane.prefix, changes.expected, changes.new, changes.rows)
        self.committed_s = time.monotonic()

    def _watch_for_a_flood(self, n_messages: int, n_bad: int) -> None:
        self._bad_in_a_row = self._bad_in_a_row + n_bad if n_bad == n_messages else 0
        self._stop_a_flood(self._bad_in_a_row)

    def _stop_a_flood(self, in_a_row: int) -> None:
        if in_a_row > self._intake.max_bad_in_a_row:
            raise TooManyBadMessages(
                f"the last {in_a_row} messages were all refused (see the dead-letters topic): "
                "stopped, so that the log keeps them in place until the producer or the schema is put right"
            )
