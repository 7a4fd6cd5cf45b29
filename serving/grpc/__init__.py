import os

# grpcio's core writes past our log, a line for whatever a client does wrong; it looks here when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
