import os

import structlog
from hypothesis import settings

from schemas.ids import use_key

# The first example of a test compiles kernels, so a wall-clock deadline says nothing.
settings.register_profile("headrace", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("headrace")

# One key for the tests and the programs that they start, so that tests know the names of rows.
ID_KEY = bytes(range(16))
os.environ["HEADRACE_ID_KEY"] = ID_KEY.hex()
use_key(ID_KEY)

# As programs log: rich traces would print whole tables of rows, for minutes.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])
