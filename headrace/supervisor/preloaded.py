"""What flow and server have in common with all their successors: imported and compiled once, then forked.

The standard library's fork server imports this module (`headrace.supervisor.children`). No thread, connection or
event loop may be made here: a fork would copy them without what runs them.
"""

import gc

import flows.run  # noqa: F401
import serving.app.server  # noqa: F401
from flows import warm_up as flow
from headrace.settings import load_settings
from serving.app import warm_up as server
from state.id_key import use_id_key

use_id_key(load_settings())
flow.warm_up()
server.warm_up()
gc.collect()
gc.freeze()  # so that a collection in one process does not touch, and so copy, the pages all share
