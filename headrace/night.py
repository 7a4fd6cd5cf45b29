"""The nightly training: when it is due, and a child of low priority that does it. It harms nothing when it fails."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

from batch.settings import zone_of
from flows.connect import open_store
from flows.log.contract import Log, LogUnavailable
from flows.log.open_log import open_log
from headrace.exit_codes import OK
from headrace.settings import Settings
from schemas.events import TOPICS
from state.anchors.last_run import NextRun, TrainingRun, read_last_run, write_last_run, write_next_run
from state.rows import keys
from state.store.contract import Positions, StoreUnavailable
from state.store.redis_store import RedisStore

FIRST_EVENTS = 300
"""So many messages about what visitors did are enough for a first training; then twice as many as at the last try."""
TURN_S = 0.5
LOOK_S = 5.0
STOP_S = 10.0
ABOUT_VISITORS = {"product-views", "user-events", "purchases", "ratings"} & set(TOPICS)
LAST_LINE = 300
REPORT = "night.log"
"""What the last training printed, in the data folder."""

Tell = Callable[..., None]


def next_night(now: datetime, night_at: str, zone: str) -> datetime:
    """Return the first moment after `now` at which clocks of the zone show the time.

    >>> next_night(datetime(2026, 11, 30, 3, 0, tzinfo=UTC), "03:30", "Europe/Berlin").isoformat()
    '2026-12-01T03:30:00+01:00'
    """
    at, there = time_of_day.fromisoformat(night_at), zone_of(zone)
    today = now.astimezone(there).date()
    days = (datetime.combine(today + timedelta(n), at, there) for n in range(3))
    return next(moment for moment in days if moment > now)


def is_due(now_ms: int, due_ms: int, last: TrainingRun | None, n_events: int, tried_with: int) -> bool:
    """Return whether to train now: the hour has come, or there is enough to learn from for the first time.

    `due_ms`: the next hour that was set. `tried_with`: events there were when a training last published nothing.
    """
    if now_ms >= due_ms:
        return True
    never = last is None or last.outcome == "too_little"
    return never and n_events >= max(FIRST_EVENTS, 2 * tried_with)


class Night:
    """Trains when it is due. One is at work beside each log: two would train twice."""

    def __init__(self, settings: Settings, tell: Tell) -> None:
        """`tell` is called with an event and its fields."""
        self._settings, self._tell = settings, tell
        self._report = settings.data_dir / REPORT
        self._store: RedisStore | None = None
        self._log: Log | None = None
        self._training: subprocess.Popen[bytes] | None = None
        self._began_ms = 0
        self._looked = float("-inf")
        self._due_ms = 0
        self._tried_with = 0

    def run(self, stopping: threading.Event) -> None:
        """Train whenever it is due, until the stop; where no hour is set, do nothing."""
        if self._settings.night_at == "off":
            return
        try:
            while not stopping.wait(TURN_S):
                self.watch()
        finally:
            self.stop()

    def watch(self) -> None:
        """Do what is due: begin a training, or record how one ended. Returns at once."""
        if self._training is not None:
            if self._training.poll() is not None:
                self._ended(self._training)
            return
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(StoreUnavailable, LogUnavailable):  # it is looked for again
            self._begin_if_due()

    def stop(self) -> None:
        """End a training under way, and leave no date that nobody keeps."""
        if self._training is not None:
            self._training.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._training.wait(STOP_S)
            self._training.kill()
            self._training.wait()
        with contextlib.suppress(StoreUnavailable):
            if self._store is not None:
                write_next_run(self._store, None)
                self._store.close()
        if self._log is not None:
            self._log.close()

    def _begin_if_due(self) -> None:
        store, log = self._parts()
        now_ms, n_events = time.time_ns() // 1_000_000, _about_visitors(log.end())
        last = read_last_run(store)
        if last is None and store.read([keys.ANCHOR_LIVE])[0] is not None:
            last = TrainingRun(at_ms=now_ms, seconds=0, outcome="published")  # by a version that kept no record
        if not self._due_ms:
            self._due_ms = self._first_due(now_ms, last)
            write_next_run(store, self._next_run())
        if not is_due(now_ms, self._due_ms, last, n_events, self._tried_with):
            return
        self._tried_with, self._began_ms = n_events, now_ms
        self._due_ms = self._after(now_ms)
        write_next_run(store, self._next_run())
        self._tell("training begins, at low priority: `headrace status` shows how it ends", events=n_events)
        command = ["nice", "-n", "19", sys.executable, "-m", "headrace", "anchor", "--json"]
        with self._report.open("wb") as report:
            self._training = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=report, start_new_session=True
            )

    def _parts(self) -> tuple[RedisStore, Log]:
        if self._store is None:
            self._store = open_store(self._settings)
        if self._log is None:
            self._log = open_log(self._settings.log_address, config=self._settings.kafka_config)
        return self._store, self._log

    def _after(self, ms: int) -> int:
        moment = next_night(datetime.fromtimestamp(ms / 1000, UTC), self._settings.night_at, self._settings.night_zone)
        return int(moment.timestamp() * 1000)

    def _first_due(self, now_ms: int, last: TrainingRun | None) -> int:
        """Return the next hour; where one has passed since the last training, while nothing ran, it is due now."""
        return self._after(now_ms) if last is None else min(self._after(last.at_ms), self._after(now_ms))

    def _next_run(self) -> NextRun:
        return NextRun(at_ms=self._due_ms, night_at=self._settings.night_at, zone=self._settings.night_zone)

    def _ended(self, training: subprocess.Popen[bytes]) -> None:
        """Tell how the training ended; record it where it could not do so itself."""
        lines = self._report.read_text(errors="replace").strip().splitlines()
        self._training = None
        fields: dict[str, Any] = {} if training.returncode == OK else {"reason": lines[-1][:LAST_LINE] if lines else ""}
        with contextlib.suppress(StoreUnavailable):
            store, _ = self._parts()
            last = read_last_run(store)
            if last is None or last.at_ms < self._began_ms:
                message = f"ended with {training.returncode}: {fields.get('reason', '')}"
                seconds = time.time_ns() / 1e9 - self._began_ms / 1000
                last = TrainingRun(at_ms=self._began_ms, seconds=seconds, outcome="failed", message=message)
                write_last_run(store, last)
            fields["version"] = last.version
        self._tell("training has ended", exit_code=training.returncode, **fields)


def _about_visitors(end: Positions) -> int:
    """Return how many messages about visitors the log has ever had."""
    return sum(n for stream, n in end.items() if stream.rpartition(":")[0] in ABOUT_VISITORS)
