"""Every metric that flow and server declare is in what they show to Prometheus."""

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

import flows.flow  # noqa: F401
import serving.app.server  # noqa: F401
from serving.engine.metrics import SERVER

ROOT = Path(__file__).parents[2]
OF_SERVER, OF_PROCESS = (
    {family.name: family for family in registry.collect() if family.name.startswith("headrace_")}
    for registry in (SERVER, REGISTRY)
)
DECLARED = OF_PROCESS | OF_SERVER
OF_BOTH = {"headrace_anchor_fetches", "headrace_anchor_waiting_seconds"}
"""Metrics of what flow and server both do."""


@pytest.fixture(scope="module")
def scraped(shop):
    return {
        port: {family.name: family for family in text_string_to_metric_families("\n".join(shop.exposition(port)))}
        for port in ("http_port", "flow_metrics_port")
    }


def test_every_metric_is_declared_once_and_found():
    written = set()
    for package in ("flows", "serving", "state", "schemas"):
        for file in (ROOT / package).rglob("*.py"):
            written |= set(re.findall(r'(?:Counter|Gauge|Histogram|Summary)\(\s*"(headrace_\w+)"', file.read_text()))
    assert set(DECLARED) == written
    assert len(written) == 34
    assert {"headrace_messages", "headrace_lag_messages"} <= OF_PROCESS.keys() - OF_SERVER.keys()


@pytest.mark.parametrize("name", DECLARED)
def test_a_metric_is_shown_by_the_process_that_declares_it(scraped, name):
    port, other = ("http_port", "flow_metrics_port") if name in OF_SERVER else ("flow_metrics_port", "http_port")
    assert scraped[port][name].documentation == DECLARED[name].documentation
    assert name not in scraped[other] or name in OF_BOTH


@pytest.mark.parametrize(
    ("port", "sample"),
    [("flow_metrics_port", "headrace_events_total"), ("flow_metrics_port", "headrace_messages_total"),
     ("flow_metrics_port", "headrace_product_changes_total"), ("flow_metrics_port", "headrace_rows_written_total"),
     ("flow_metrics_port", "headrace_position"), ("flow_metrics_port", "headrace_batch_messages_count"),
     ("flow_metrics_port", "headrace_stage_seconds_count"), ("flow_metrics_port", "headrace_freshness_seconds_count"),
     ("flow_metrics_port", "headrace_cache_rows_total"), ("flow_metrics_port", "headrace_refolded_rows"),
     ("http_port", "headrace_events_appended_total"), ("http_port", "headrace_answers_total"),
     ("http_port", "headrace_answer_seconds_count"), ("http_port", "headrace_answer_stage_seconds_total"),
     ("http_port", "headrace_impressions_total")],
)  # fmt: skip
def test_a_metric_of_what_the_shop_did_has_counted_it(scraped, port, sample):
    samples = [one for family in scraped[port].values() for one in family.samples if one.name == sample]
    assert sum(one.value for one in samples) > 0
