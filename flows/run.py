"""The flow as a program: its drivers, its metrics port, its exit code."""

import structlog

from flows.flow import OUT_OF_REACH, Flow
from flows.health import Health
from flows.health_server import serve_health
from flows.log.contract import LogUnavailable, PositionLost
from flows.runner import TooManyBadMessages
from flows.settings import FlowSettings
from flows.signals import stop_on_signals
from schemas.registry import RegistryUnavailable
from state.rows.slot_map import CacheTooSmall
from state.store.contract import StoreUnavailable

log = structlog.get_logger()


def run_loop(flow: Flow) -> None:
    """Fold until the flow's `stopping` is set: the plain driver."""
    flow.begin()
    log.info("flow is running", generation=flow.generation, driver="loop")
    while not flow.stopping.is_set():
        try:
            flow.handle(flow.poll())
        except OUT_OF_REACH as error:
            flow.recover(error)


def run_flow(settings: FlowSettings, driver: str, workers: int = 1) -> int:
    """Run a flow until a signal; return the exit code. `workers` are Bytewax's, of this process."""
    try:
        if driver == "bytewax":
            from flows.on_bytewax import run_bytewax
            from flows.parts import Parts

            parts = Parts(settings)
            stop_on_signals(parts.stopping)
            n_parts = len(parts.names())
            if workers > n_parts:
                log.warning("some workers have nothing to do: a worker folds at least one lane",
                            workers=workers, lanes=n_parts)  # fmt: skip
            run_bytewax(parts, workers)
        else:
            _run_alone(settings)
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable) as error:
        log.error("the flow cannot start", error=str(error))
        return 3
    except (PositionLost, TooManyBadMessages, CacheTooSmall, ValueError) as error:
        log.error("the flow stops", error=str(error))
        return 1
    log.info("flow has stopped")
    return 0


def _run_alone(settings: FlowSettings) -> None:
    health = Health()
    serve_health(settings, health)
    flow = Flow(settings, health=health)
    stop_on_signals(flow.stopping)
    try:
        run_loop(flow)
    finally:
        flow.close()
