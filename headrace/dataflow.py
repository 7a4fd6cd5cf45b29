"""The flow for Bytewax's own programs: `python -m bytewax.run headrace.dataflow -w 2`."""

from flows.on_bytewax import dataflow
from flows.parts import Parts
from flows.signals import stop_on_signals
from headrace.settings import load_settings

_parts = Parts(load_settings(), raises=True)
stop_on_signals(_parts.stopping)
flow = dataflow(_parts)
"""What `bytewax.run` and `bytewax.visualize` look for; to import it opens nothing."""
