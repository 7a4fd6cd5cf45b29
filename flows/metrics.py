"""The flow's Prometheus metrics. docs/operations.md says what each one means."""

from prometheus_client import Counter, Gauge, Histogram

from flows.runner import Report

BATCH_BUCKETS = (1, 10, 50, 100, 500, 1000, 2000, 5000, 10000)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

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
REFOLDED = Gauge("headrace_refolded_rows", "Vectors written by the refold under way")


def observe(report: Report) -> None:
    """Count a batch."""
    MESSAGES.inc(report.n_messages)
    BATCH_SIZE.observe(report.n_messages)
    for reason, n in report.bad.items():
        DEAD_LETTERS.labels(reason).inc(n)
    for lane, stats in enumerate(report.stats):
        EVENTS.labels(lane).inc(stats.n_events)
        DROPPED.labels(lane, "duplicate").inc(stats.n_duplicates)
        DROPPED.labels(lane, "late").inc(stats.n_late)
        PRODUCTS.labels(lane).inc(stats.n_products)
    for stage, seconds in report.seconds.items():
        STAGE_SECONDS.labels(stage).observe(seconds)
    for stream, position in report.positions.items():
        POSITION.labels(stream).set(position)
