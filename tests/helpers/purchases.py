"""Made-up purchases on a log, for tests of training."""

import numpy as np

from flows.log.contract import Message
from schemas.json_events import encode
from schemas.registry import FolderRegistry

NOW = 1_700_000_000_000
REGISTRY = FolderRegistry()


def purchase(n, ts_ms):
    rng = np.random.default_rng(n)
    user = int(rng.integers(120))
    lines = [{"item": f"i{int(rng.integers(50)) * 6 + user % 6}", "quantity": 1.0}]
    record = {"event_id": f"e{n}", "ts_ms": ts_ms, "user": f"u{user}", "lines": lines}
    return Message("purchases", b"", encode("purchases", record, REGISTRY), ts_ms)
