"""The gRPC interface over grpc.aio: five methods, health and reflection.

It may import engine and what lies below; only app imports it.
Begin with `service.py`; `interceptors.py` is what every call goes through.
"""

import os

# grpcio's core writes past our log, a line for whatever a client does wrong; it looks here when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
