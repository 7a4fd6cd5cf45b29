"""A server of tests as a process of its own: prints its gRPC port and serves until its standard input ends."""

import sys
import tempfile
from pathlib import Path

from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events
from schemas.ids import use_key

if __name__ == "__main__":
    use_key(bytes(range(16)))
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea")])
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), recommender) as server:
        print("port", server.grpc_port, flush=True)
        sys.stdin.read()
