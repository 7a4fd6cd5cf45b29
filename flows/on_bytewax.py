"""The flow on Bytewax: one item is one batch, and what matters rests in Redis, not in Bytewax.

Bytewax's own recovery is not used: the lane's positions in Redis say where to read on.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from flows.flow import OUT_OF_REACH, Flow
from flows.log.contract import RawBatch

IDLE = timedelta(milliseconds=1)


class _Batches(StatefulSourcePartition[RawBatch | None, None]):
    """Reads at the flow's positions; also yields None when idle, so that the sink can do other work."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._next = datetime.now(UTC)
        flow.begin()

    def next_batch(self) -> Iterable[RawBatch | None]:
        if self._flow.stopping.is_set():
            raise StopIteration
        try:
            batch = self._flow.poll()
        except OUT_OF_REACH as error:
            self._flow.recover(error)
            batch = None
        self._next = datetime.now(UTC) + (IDLE if batch is None else timedelta(0))
        return [batch]

    def next_awake(self) -> datetime:
        return self._next

    def snapshot(self) -> None:
        return None


class _Source(FixedPartitionedSource[RawBatch | None, None]):
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def list_parts(self) -> list[str]:
        return ["log"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Batches:
        return _Batches(self._flow)


class _Fold(StatelessSinkPartition[RawBatch | None]):
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def write_batch(self, items: list[RawBatch | None]) -> None:
        for item in items:
            try:
                self._flow.handle(item)
            except OUT_OF_REACH as error:
                self._flow.recover(error)


class _Lanes(DynamicSink[RawBatch | None]):
    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Fold:
        return _Fold(self._flow)


def dataflow(flow: Flow) -> Dataflow:
    """Return the dataflow: the log's batches, folded in the order they were read."""
    graph = Dataflow("headrace")
    op.output("lanes", op.input("log", graph, _Source(flow)), _Lanes(flow))
    return graph


def run_bytewax(flow: Flow) -> None:
    """Run the dataflow in this process until the flow's `stopping` is set."""
    run_main(dataflow(flow))  # type: ignore[no-untyped-call]
