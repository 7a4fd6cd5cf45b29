"""The flow as a program: its drivers, its metrics port, its exit code."""

import structlog

from flows.flow import OUT_OF_REACH, Flow
from flows.health import Health
from flows.health_server import start_health_server
from flows.log.contract import LogUnavailable, PositionLost
from flows.runner import TooManyBadMessages
from flows.settings import FlowSettings
from flows.signals import stop_on_signals
from schemas.registry import RegistryUnavailable
from state.rows.slot_map import CacheTooSmall
from state.settings import PREFIX, BadSettings
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


def run_flow(settings: FlowSettings, driver: str) -> int:
    """Run a flow until a signal; return the exit code."""
    health = Health()
    if settings.flow_metrics_port:
        try:
            start_health_server(settings.flow_metrics_port, settings.http_host, health)
        except OSError as error:
            raise BadSettings(
                f"{PREFIX}FLOW_METRICS_PORT: port {settings.flow_metrics_port} of {settings.http_host} cannot be used "
                f"({error.strerror}); give each flow of a machine its own, or 0 for no metrics"
            ) from None
    try:
        flow = Flow(settings, health=health)
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable) as error:
        log.error("the flow cannot start", error=str(error))
        return 3
    stop_on_signals(flow.stopping)
    try:
        if driver == "bytewax":
            from flows.on_bytewax import run_bytewax

            run_bytewax(flow)
        else:
            run_loop(flow)
    except (PositionLost, TooManyBadMessages, CacheTooSmall, ValueError) as error:
        log.error("the flow stops", error=str(error))
        return 1
    finally:
        flow.close()
    log.info("flow has stopped")
    return 0
