"""The flow as a Bytewax dataflow: what its steps do is `flows.flow`, and what matters rests in Redis.

Its source has a part for each lane, read at the lane's own positions, so Bytewax places lanes on workers and no event
crosses from one to another: there is no keyed step. One item is one batch. Bytewax's own recovery is not used: the
positions in Redis say where to read on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from flows.flow import OUT_OF_REACH, Flow
from flows.log.contract import RawBatch
from flows.runner import Block

IDLE, STANDBY = timedelta(milliseconds=1), timedelta(milliseconds=100)
EPOCH = timedelta(seconds=10)
"""Epochs end nothing and snapshot nothing here; this is what Bytewax's own runner takes."""


class Crew(Protocol):
    """The flows of a dataflow, by part (`flows.parts`)."""

    failure: Exception | None

    def names(self) -> list[str]:
        """Return the names of all parts, the same in every process."""

    def open(self, name: str) -> Flow:
        """Return the flow of a part, at work."""

    def close(self, flow: Flow) -> None:
        """Let a flow go; it may be called again."""

    def fail(self, error: Exception) -> None:
        """Stop all parts because of an error that does not pass."""


@dataclass
class Turn:
    """An item: a batch on its way through the steps, or, without one, a flow's time for other work."""

    flow: Flow
    raw: RawBatch | None = None
    block: Block | None = None

    def drop(self) -> None:
        """Make the rest of the way one without a batch."""
        self.raw = self.block = None


class _Part(StatefulSourcePartition[Turn, None]):
    """Reads the log at the positions of a part's lanes, and never waits for it."""

    def __init__(self, crew: Crew, name: str) -> None:
        self._crew, self._name = crew, name
        self._flow: Flow | None = None
        self._next = datetime.now(UTC)

    def next_batch(self) -> Iterable[Turn]:
        if self._crew.failure is not None or (self._flow is not None and self._flow.stopping.is_set()):
            raise StopIteration
        try:
            if self._flow is None:
                self._flow = self._crew.open(self._name)
                return [Turn(self._flow)]
            return self._read(self._flow)
        except Exception as error:
            self._crew.fail(error)
            raise StopIteration from error

    def _read(self, flow: Flow) -> list[Turn]:
        raw = None
        try:
            raw = flow.poll(0.0)
        except OUT_OF_REACH as error:
            flow.recover(error)
        wait = timedelta(0) if raw is not None else IDLE if flow.runner.lanes else STANDBY
        self._next = datetime.now(UTC) + wait
        return [Turn(flow, raw)] if raw is not None or flow.is_due else []

    def next_awake(self) -> datetime:
        return self._next

    def snapshot(self) -> None:
        return None


class _Lanes(FixedPartitionedSource[Turn, None]):
    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def list_parts(self) -> list[str]:
        return self._crew.names()

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Part:
        return _Part(self._crew, for_part)


class _Sink(StatelessSinkPartition[Turn]):
    """Does one thing with each item; with `closes` the flows end with it."""

    def __init__(self, crew: Crew, act: Callable[[Turn], None], closes: bool) -> None:
        self._crew, self._act, self._closes = crew, act, closes
        self._seen = set[Flow]()

    def write_batch(self, items: list[Turn]) -> None:
        for turn in items:
            self._seen.add(turn.flow)
            _attempt(self._crew, self._act, turn)

    def close(self) -> None:
        for flow in self._seen if self._closes else ():
            self._crew.close(flow)


class _OnEveryWorker(DynamicSink[Turn]):
    def __init__(self, crew: Crew, act: Callable[[Turn], None], closes: bool = False) -> None:
        self._crew, self._act, self._closes = crew, act, closes

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Sink:
        return _Sink(self._crew, self._act, self._closes)


def _attempt(crew: Crew, act: Callable[[Turn], None], turn: Turn) -> None:
    """Do a step of an item. Where something is out of reach the item is dropped: the lanes read it again."""
    if crew.failure is not None:
        return
    if turn.block is not None and not turn.flow.is_current(turn.block):
        turn.drop()
    try:
        act(turn)
    except OUT_OF_REACH as error:
        turn.drop()
        turn.flow.recover(error)
    except Exception as error:
        crew.fail(error)


def _decode(turn: Turn) -> None:
    turn.block = turn.flow.decode(turn.raw)


def _write_letters(turn: Turn) -> None:
    if turn.block is not None:
        turn.flow.runner.write_letters(turn.block)


def _fold(turn: Turn) -> None:
    if turn.block is None:
        turn.flow.runner.drain()
        return
    turn.flow.runner.write_letters(turn.block)  # if that step has not had its turn: letters come before the commit
    turn.flow.fold(turn.block)


def _commit(turn: Turn) -> None:
    if turn.block is not None:
        turn.flow.commit(turn.block)
    turn.flow.look_after(turn.block is not None and turn.block.behind)


def _observe(turn: Turn) -> None:
    if turn.block is not None:
        turn.flow.observe(turn.block)


def _report(turn: Turn) -> None:
    turn.flow.report()


def _is_refused(turn: Turn) -> bool:
    return turn.block is not None and bool(turn.block.bad)


def dataflow(crew: Crew) -> Dataflow:
    """Return the dataflow. Nothing is opened before it runs."""

    def step(act: Callable[[Turn], None]) -> Callable[[Turn], Turn]:
        def run(turn: Turn) -> Turn:
            _attempt(crew, act, turn)
            return turn

        return run

    graph = Dataflow("headrace")
    decoded = op.map("decode", op.input("lanes", graph, _Lanes(crew)), step(_decode))
    op.output("dead-letters", op.filter("refused", decoded, _is_refused), _OnEveryWorker(crew, _write_letters))
    folded = op.map("fold", decoded, step(_fold))
    observed = op.map("metrics", folded, step(_observe))
    reported = op.map("freshness", observed, step(_report))
    op.output("commit", reported, _OnEveryWorker(crew, _commit, closes=True))
    return graph


def run_bytewax(crew: Crew, workers: int = 1) -> None:
    """Run the dataflow on this many worker threads until the flows' `stopping` is set. Raises the crew's failure."""
    cli_main(dataflow(crew), workers_per_process=workers, epoch_interval=EPOCH)  # type: ignore[no-untyped-call]
    if crew.failure is not None:
        raise crew.failure
