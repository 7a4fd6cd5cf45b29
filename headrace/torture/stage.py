"""The real parts a fault is played on: a broker, a Redis with append-only file, flow processes."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from flows.log.contract import Log, LogUnavailable, Message
from flows.log.kafka_log import KafkaLog
from headrace.settings import Settings
from headrace.torture.local_kafka import LocalKafka
from headrace.torture.reference import PREFIXES
from schemas.ids import key_in_use
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.store.contract import StoreUnavailable, decode_positions
from state.store.redis_store import RedisStore

PATIENCE_S = 90.0
BATCH = 2_000
"""Enough for large commits, with a redo record; small ones come of themselves while the stream is sent."""
FOLD = Settings(lateness_s=86_400, dedupe_window=32_768, max_cached_users=8_000, max_cached_items=8_000)
DRIVERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "loop": (1, ("--driver", "loop")),
    "bytewax": (2, ("--driver", "bytewax", "--workers", "2")),
}
"""By driver: how many lanes there are, and the arguments of `headrace flow`."""


class FlowProcess:
    """One `headrace flow`; what it logs is kept."""

    def __init__(self, environment: dict[str, str], name: str, driver: str) -> None:
        command = [sys.executable, "-m", "headrace", "flow", *DRIVERS[driver][1]]
        self._process = subprocess.Popen(
            command, env=environment | {"HEADRACE_FLOW_NAME": name}, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self.said.extend(lines)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait; return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self.wait()

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; return the exit code."""
        code = self._process.wait(timeout_s)
        self._reader.join(5)
        return code

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None


class Stage:
    """Fresh Redis and topics for one round; the broker is shared by all rounds."""

    def __init__(
        self, broker: LocalKafka, folder: Path, stream: list[Message], seed: int, log: Log | None = None,
        driver: str = "loop",
    ) -> None:  # fmt: skip
        self.driver = driver
        self.prefixes = PREFIXES[: DRIVERS[driver][0]]
        self.broker, self.stream, self.random = broker, stream, random.Random(seed)
        self.folder = folder
        self.redis = EmbeddedRedis(folder / "redis")
        self.redis.start()
        self.log = log or self._fresh_topics()
        self._sender: threading.Thread | None = None
        self.flows: list[FlowProcess] = []
        self.sent = 0

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for flow in self.flows:
            flow.end()
        if self._sender is not None:
            self._sender.join()
        self.log.close()
        self.redis.kill()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of its flows."""
        fold = {f"HEADRACE_{name.upper()}": str(getattr(FOLD, name)) for name in FOLD.model_fields_set}
        return os.environ | fold | {
            "HEADRACE_LOG_URL": f"kafka:{self.broker.bootstrap}", "HEADRACE_REDIS_URL": self.redis.url,
            "HEADRACE_FLOW_METRICS_PORT": "0", "HEADRACE_BATCH_MAX_EVENTS": str(BATCH), "HEADRACE_LOG_FORMAT": "json",
            "HEADRACE_N_LANES": str(len(self.prefixes)), "HEADRACE_ID_KEY": key_in_use().hex(),
            "HEADRACE_DATA_DIR": str(self.folder), "HEADRACE_LEASE_S": "1", "HEADRACE_CONNECT_TIMEOUT_S": "60",
        }  # fmt: skip

    def start_flow(self, name: str = "a") -> FlowProcess:
        """Start a flow; it ends with the stage at the latest."""
        flow = FlowProcess(self.environment, name, self.driver)
        self.flows.append(flow)
        return flow

    def send(self, seconds: float) -> None:
        """Append the stream in the background, spread over about `seconds`."""

        def run() -> None:
            step = max(len(self.stream) // 60, 1)
            for first in range(0, len(self.stream), step):
                self._append(self.stream[first : first + step])
                self.sent = first + step
                time.sleep(seconds / 60)

        self._sender = threading.Thread(target=run, daemon=True)
        self._sender.start()

    def pause(self, low: float, high: float) -> None:
        """Wait a random time, so that faults meet every moment."""
        time.sleep(self.random.uniform(low, high))

    def settle(self) -> None:
        """Wait until everything was sent and folded, then stop the flows. Raises TimeoutError."""
        if self._sender is not None:
            self._sender.join(PATIENCE_S)
        end = self.log.end()
        deadline = time.monotonic() + PATIENCE_S
        while any(at != {**at, **end} for at in self.positions()) or self.owes_vectors():
            if time.monotonic() > deadline:
                said = "".join(self.flows[-1].said[-5:]) if self.flows else ""
                raise TimeoutError(f"the flow did not reach the end of the log: {said}")
            if not any(flow.alive for flow in self.flows):
                self.start_flow()
            time.sleep(0.1)
        for flow in self.flows:
            flow.end(signal.SIGTERM)

    def positions(self) -> list[dict[str, int]]:
        """Look at the committed positions of each lane, without taking it over; {} while Redis is away."""
        return [decode_positions(self._look(keys.positions(prefix))) for prefix in self.prefixes]

    def owes_vectors(self) -> bool:
        """Return whether some vectors are still behind their rows."""
        return any(self._look(keys.owes_vectors(prefix)) is not None for prefix in self.prefixes)

    def _look(self, key: bytes) -> bytes | None:
        try:
            store = RedisStore(self.redis.url, timeout_s=1)
            value = store.read([key])[0]
            store.close()
            return value
        except StoreUnavailable:
            return None

    def wait_for_share(self, share: float) -> None:
        """Wait until every lane has folded this share of the stream."""
        deadline = time.monotonic() + PATIENCE_S
        while min(sum(at.values()) for at in self.positions()) < share * len(self.stream):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the flow never folded {share:.0%} of the stream")
            time.sleep(0.02)

    def rows(self) -> dict[bytes, bytes]:
        """Return everything that rests in Redis of the lanes."""
        store = RedisStore(self.redis.url)
        found = [key for prefix in self.prefixes for chunk in store.scan(prefix) for key in chunk]
        rows = {key: value for key, value in zip(found, store.read(found), strict=True) if value is not None}
        store.close()
        return rows

    def _append(self, messages: Sequence[Message]) -> None:
        """Send until the log has confirmed; a repeated message has the same event id."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.log.append(messages)
                return
            except LogUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _fresh_topics(self) -> KafkaLog:
        log = KafkaLog(self.broker.bootstrap)
        log.delete_topics()
        log.create_topics(partitions=2)
        return log
