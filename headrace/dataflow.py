"""The flow for Bytewax's own runner: `python -m bytewax.run headrace.dataflow`."""

from flows.flow import Flow
from flows.on_bytewax import dataflow
from flows.signals import stop_on_signals
from headrace.settings import load_settings

_flow = Flow(load_settings())
stop_on_signals(_flow.stopping)
flow = dataflow(_flow)
"""What `bytewax.run` looks for; importing this module connects to Redis and the log."""
