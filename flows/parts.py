"""The parts of a dataflow: lanes as an engine places them, each folded by a flow of its own."""

import threading

import structlog

from flows.connect import open_store
from flows.flow import Flow
from flows.fold.lane import Lane
from flows.health import HealthOfParts
from flows.health_server import serve_health
from flows.settings import FlowSettings
from flows.warm_up import warm_up
from state.generations import live_generation, read_generation

log = structlog.get_logger()


class Parts:
    """Parts "lane-0", "lane-1", … of the live generation, and what those of one process have in common.

    A part folds the lanes `lane mod number of parts == part`, so that all lanes keep a part when the live generation
    changes to one with another number of them.
    """

    def __init__(self, settings: FlowSettings, raises: bool = False) -> None:
        """`raises`: a failure goes to the engine, whose program knows of no other way; else the dataflow just ends."""
        self.stopping = threading.Event()
        self.health = HealthOfParts()
        self.failure: Exception | None = None
        self._settings, self._raises = settings, raises
        self._lock = threading.Lock()
        self._names: list[str] | None = None
        self._flows: list[Flow] = []

    def names(self) -> list[str]:
        """Return the names of all parts, here and elsewhere; once in a process: serve health, compile what folds."""
        with self._lock:
            if self._names is None:
                self._names = [f"lane-{lane}" for lane in range(self._n_lanes())]
                serve_health(self._settings, self.health)
                warm_up()
        return self._names

    def open(self, name: str) -> Flow:
        """Return the flow of a part, at work."""
        share = (self.names().index(name), len(self.names()))
        flow = Flow(self._settings, health=self.health.add(), share=share)
        flow.stopping, flow.lanes_here = self.stopping, self._lanes
        with self._lock:
            self._flows.append(flow)
        flow.begin()
        log.info("flow is running", generation=flow.generation, driver="bytewax", part=name)
        return flow

    def close(self, flow: Flow) -> None:
        """Finish the flow's commit under way and let its lanes go; once, however often it is called."""
        with self._lock:
            if flow not in self._flows:
                return
            self._flows.remove(flow)
        flow.close()

    def fail(self, error: Exception) -> None:
        """Stop all parts because of an error that does not pass."""
        self.failure = self.failure or error
        self.stopping.set()
        if self._raises:
            raise error

    def _lanes(self) -> list[Lane]:
        return [lane for flow in list(self._flows) for lane in flow.runner.lanes]

    def _n_lanes(self) -> int:
        store = open_store(self._settings, patient=True)
        try:
            name = live_generation(store)
            found = read_generation(store, name) if name else None
        finally:
            store.close()
        return found.settings(self._settings).n_lanes if found else self._settings.n_lanes


class OneFlow:
    """A dataflow of one part, a flow that is there already and is closed by whoever made it."""

    def __init__(self, flow: Flow) -> None:
        self.failure: Exception | None = None
        self._flow = flow

    def names(self) -> list[str]:
        """Return the name of the part."""
        return ["lanes"]

    def open(self, name: str) -> Flow:
        """Return the flow, at work."""
        self._flow.begin()
        return self._flow

    def close(self, flow: Flow) -> None:
        """Leave the flow open."""

    def fail(self, error: Exception) -> None:
        """Stop the flow because of an error that does not pass."""
        self.failure = error
        self._flow.stopping.set()
