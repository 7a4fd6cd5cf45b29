"""The flow's Prometheus metrics. docs/operate.md explains each one."""

from prometheus_client import Counter, Gauge, Histogram

from flows.runner import Report
from state.store.contract import Positions

BATCH_BUCKETS = (1, 10, 50, 100, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 120_000, 240_000)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
AGES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 60, 3600, 86_400)

EVENTS = Counter("headrace_events", "Interaction rows folded", ["lane"])
DROPPED = Counter("headrace_events_dropped", "Interaction rows not placed in a history", ["lane", "reason"])
DEAD_LETTERS = Counter("headrace_dead_letters", "Messages refused", ["reason"])
MESSAGES = Counter("headrace_messages", "Messages read from the log")
PRODUCTS = Counter("headrace_product_changes", "Catalogue changes folded", ["lane"])
BATCH_SIZE = Histogram("headrace_batch_messages", "Messages in a batch", buckets=BATCH_BUCKETS)
STAGE_SECONDS = Histogram("headrace_stage_seconds", "Time of a batch by stage", ["stage"], buckets=SECONDS)
FENCES = Counter("headrace_fences", "Commits refused because another owner moved the lane")
STORE_ERRORS = Counter("headrace_store_errors", "Commits that met a store out of reach")
POSITION = Gauge("headrace_position", "Next offset to fold", ["stream"])
ROWS = Counter("headrace_rows_written", "Rows committed", ["lane"])
CACHE_ROWS = Counter("headrace_cache_rows", "Rows asked of a lane's cache", ["table", "found"])
LAG = Gauge("headrace_lag_messages", "Messages behind the end of the log", ["stream"])
LAG_SECONDS = Gauge("headrace_lag_seconds", "Age of the newest event folded while behind the end, else 0")
FRESHNESS = Histogram(
    "headrace_freshness_seconds", "From event time to commit, of up to 20 events a batch", buckets=AGES
)
REFOLDED = Gauge("headrace_refolded_rows", "Vectors written by the refold under way")


def observe(report: Report) -> None:
    """Count a batch."""
    MESSAGES.inc(report.n_messages)
    BATCH_SIZE.observe(report.n_messages)
    for reason, n in report.bad.items():
        DEAD_LETTERS.labels(reason).inc(n)
    for lane, stats in zip(report.lanes, report.stats, strict=True):
        EVENTS.labels(lane).inc(stats.n_events)
        DROPPED.labels(lane, "duplicate").inc(stats.n_duplicates)
        DROPPED.labels(lane, "late").inc(stats.n_late)
        DROPPED.labels(lane, "erased").inc(stats.n_erased)
        PRODUCTS.labels(lane).inc(stats.n_products)
        ROWS.labels(lane).inc(stats.n_rows)
        for table, (found, missing) in stats.cache.items():
            CACHE_ROWS.labels(table, "yes").inc(found)
            CACHE_ROWS.labels(table, "no").inc(missing)
    for age_s in report.ages_s:
        FRESHNESS.observe(age_s)
    for stage, seconds in report.seconds.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    for stream, position in report.positions.items():
        POSITION.labels(stream).set(position)


def observe_lag(end: Positions, positions: Positions, newest_ms: int, now_ms: int) -> int:
    """Set the lag metrics: how far the committed positions are behind the log's end; return the sum of messages."""
    behind = {stream: max(offset - positions.get(stream, 0), 0) for stream, offset in end.items()}
    for stream, n in behind.items():
        LAG.labels(stream).set(n)
    LAG_SECONDS.set(max(now_ms - newest_ms, 0) / 1000 if newest_ms and any(behind.values()) else 0)
    return sum(behind.values())
