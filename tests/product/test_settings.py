"""Every setting, set as a process reads it and seen in what the processes do.

One product runs with all settings away from their defaults, half of them in a file and half in the environment.
"""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from helpers.product import Product, event
from helpers.up import wait_for

from flows.log.contract import Message
from flows.log.sqlite_log import SqliteLog
from headrace.settings import Settings
from schemas.ids import hash_id
from state.generations import read_generation
from state.settings import FoldSettings
from state.store.redis_store import RedisStore

TESTS = Path(__file__).parents[1]
FOLD = {
    "n_lanes": 2, "session_gap_s": 900.0, "lateness_s": 300.0, "pair_window": 2, "neighbours": 3,
    "short_half_life_s": 40_000.0, "long_half_life_s": 300_000.0, "affinity_half_life_s": 200_000.0, "scope_limit": 5,
    "small_scope_limit": 2, "dedupe_window": 4096, "weight_view": 2.0, "weight_cart": 4.0, "weight_wishlist": 3.0,
    "weight_purchase": 6.0, "weight_star": 2.0,
}  # fmt: skip
TRAINING = {"factors": 8, "als_iterations": 3, "als_regularization": 0.1, "als_alpha": 3.0}
SETTINGS = FOLD | TRAINING | {
    "generation": "g7", "redis_eviction": "warn", "flow_name": "lonely", "batch_max_events": 20,
    "max_message_bytes": 2000, "max_future_s": 60.0, "max_bad_in_a_row": 5, "http_host": "127.0.0.2",
    "default_count": 7, "exclude_purchased": True,
    "exclude_out_of_stock": False, "show_unknown_items": True,
    "impressions_share": 1.0, "store_timeout_s": 30.0, "log_level": "warning",
    "log_format": "json",
}  # fmt: skip


class Unusual:
    """The product, what was set, and where."""

    def __init__(self, product, folder):
        self.product, self.folder, self.ports = product, folder, product.ports
        self.store = RedisStore(product.redis.url)

    def samples(self, name, of="flow_metrics_port"):
        lines = [line.rpartition(" ") for line in self.product.exposition(of) if line.startswith(name)]
        return {label: float(value) for label, _, value in lines}

    def anchor(self):
        return self.product.run("anchors")["anchors"][0]


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unusual")
    own = SETTINGS | {
        "data_dir": str(folder / "data"), "log_url": f"sqlite:{folder}/elsewhere.sqlite",
        "keys_file": str(folder / "own-keys.json"), "id_key": os.environ["HEADRACE_ID_KEY"],
    }  # fmt: skip
    in_file = dict(list(own.items())[::2])
    (folder / "shop.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in in_file.items()))
    environment = {name: json.dumps(v) if isinstance(v, bool) else v for name, v in own.items() if name not in in_file}
    unset = dict.fromkeys(("data_dir", "factors", "n_lanes", "id_key"))
    given = unset | environment | {"config": folder / "shop.toml"}
    product = Product(folder, host="127.0.0.2", **given)
    product.eviction = "allkeys-lru"
    with product:
        yield Unusual(product.fill("g7"), folder)


def record_has(name):
    def check(unusual):
        assert read_generation(unusual.store, "g7").settings(Settings()).model_dump()[name] == SETTINGS[name]

    return check


def anchor_has(name):
    def check(unusual):
        assert unusual.anchor()["settings"][name.removeprefix("als_")] == SETTINGS[name]

    return check


def is_refused(status, **more):
    def check(unusual):
        answer = unusual.product.client.post("/v1/events", json=event("view", "ann", "tea", **more))
        assert answer.status_code == status, answer.text

    return check


def now(ahead_s=0.0):
    return time.time_ns() // 1_000_000 + int(1000 * ahead_s)


def check_data_dir(unusual):
    assert (unusual.folder / "data" / "anchors" / unusual.product.anchor).is_dir()


def check_redis_url(unusual):
    assert unusual.product.redis.client().dbsize() > 50


def check_redis_eviction(unusual):
    assert "evict" in unusual.product.flow.said.read_text()


def check_id_key(unusual):
    assert any(f"{hash_id('ann'):016x}".encode() in key for key in unusual.product.redis.client().keys("*u:*"))


def check_generation(unusual):
    assert "g7" in unusual.product.run("status")["generations"]


def check_n_lanes(unusual):
    record_has("n_lanes")(unusual)
    assert len(unusual.product.run("status")["generations"]["g7"]["lanes"]) == 2


def check_log_url(unusual):
    log = SqliteLog(unusual.folder / "elsewhere.sqlite")
    assert log.end()["product-views:0"] > 50
    log.close()


def check_flow_name(unusual):
    assert "lonely" in json.dumps(unusual.product.run("status"))


def check_batch_max_events(unusual):
    found = unusual.samples("headrace_batch_messages")
    within = max(v for label, v in found.items() if "bucket" in label and float(label.split('le="')[1][:-2]) <= 50)
    assert within == found["headrace_batch_messages_count"] > 5


def check_max_future_s(unusual):
    is_refused(422, at=now(90))(unusual)
    is_refused(202, at=now(30))(unusual)


def check_default_count(unusual):
    assert len(unusual.product.ask(user="ann")["items"]) == 7


def check_exclude_purchased(unusual):
    shown = {one["item"] for one in unusual.product.ask(user="bob", count=20)["items"]}
    assert not {"tea", "sofa"} & shown


def check_exclude_out_of_stock(unusual):
    assert "gone" in {one["item"] for one in unusual.product.ask(user="ann", count=20)["items"]}


def check_show_unknown_items(unusual):
    unusual.product.send({"type": "view", "user": "zoe", "item": "unlisted"})
    wait_for(lambda: "unlisted" in {one["item"] for one in unusual.product.ask(strategy="new", count=20)["items"]})


def check_impressions_share(unusual):
    wait_for(lambda: sum(unusual.samples("headrace_impressions_total", "http_port").values()) > 0)


def check_store_timeout_s(unusual):
    found = []
    unusual.product.redis.process.send_signal(signal.SIGSTOP)
    try:
        asking = threading.Thread(target=lambda: found.append(unusual.product.ask(user="ann")))
        asking.start()
        asking.join(1.0)  # ten times as long as an answer waits by default
        assert not found
    finally:
        unusual.product.redis.process.send_signal(signal.SIGCONT)
    asking.join(30)
    assert found[0]["fallback"] == "personalised"


def check_port(name):
    def check(unusual):
        assert unusual.ports[name] != Settings.model_fields[name].default
        if name == "grpc_port":
            from serving.proto import headrace_pb2

            assert unusual.product.stub.Recommend(headrace_pb2.RecommendRequest(count=1)).items
        else:
            assert unusual.product.exposition(name)

    return check


def check_http_host(unusual):
    import httpx

    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{unusual.ports['http_port']}/healthz")


def check_log_format(unusual):
    lines = unusual.product.flow.said.read_text().splitlines()
    assert any("event" in json.loads(line) for line in lines if line.startswith("{"))


def check_log_level(unusual):
    assert "server is running" not in unusual.product.server.said.read_text()


def check_keys_file(unusual):
    assert unusual.product.run("keys", "add", "shop")
    assert "shop" in (unusual.folder / "own-keys.json").read_text()


def check_max_bad_in_a_row(unusual):
    log = SqliteLog(unusual.folder / "elsewhere.sqlite")
    log.append([Message("ratings", b"k", b"broken", now())] * 6)
    log.close()
    assert unusual.product.flow.process.wait(60) != 0


CHECKS = {
    **{name: record_has(name) for name in FOLD},
    **{name: anchor_has(name) for name in TRAINING if name != "als_alpha"},
    **{name: check_port(name) for name in ("http_port", "grpc_port", "flow_metrics_port")},
    "data_dir": check_data_dir, "redis_url": check_redis_url, "redis_eviction": check_redis_eviction,
    "id_key": check_id_key, "generation": check_generation, "n_lanes": check_n_lanes, "log_url": check_log_url,
    "flow_name": check_flow_name, "batch_max_events": check_batch_max_events,
    "max_message_bytes": is_refused(413, at=now(), context={"k": "x" * 3000}), "max_future_s": check_max_future_s,
    "http_host": check_http_host, "default_count": check_default_count, "exclude_purchased": check_exclude_purchased,
    "exclude_out_of_stock": check_exclude_out_of_stock,
    "show_unknown_items": check_show_unknown_items, "impressions_share": check_impressions_share,
    "store_timeout_s": check_store_timeout_s, "log_level": check_log_level, "log_format": check_log_format,
    "keys_file": check_keys_file, "max_bad_in_a_row": check_max_bad_in_a_row,
}  # fmt: skip
"""By setting: what shows it in the running product. The last ones end what the others need."""
ELSEWHERE = {
    "connect_timeout_s": "flows/test_flow.py", "anchors_url": "state/test_artefacts.py",
    "anchors_config": "state/test_artefacts.py", "kafka_config": "project/test_project.py",
    "schema_registry_url": "flows/test_shops_registry.py", "schema_registry_timeout_s": "flows/test_shops_registry.py",
    "schema_registry_config": "project/test_project.py", "lease_s": "flows/test_flow.py",
    "flow_workers": "flows/test_flow.py",
    "max_cached_users": "helpers/flows.py", "max_cached_items": "helpers/flows.py",
    "als_alpha": "batch/test_tune.py", "als_threads": "batch/test_tune.py", "reuse_port": "e2e/test_outage.py",
    "allow_anonymous": "serving/test_api_keys.py",
    "grpc_certificate": "serving/test_grpc.py", "grpc_private_key": "serving/test_grpc.py",
    "grpc_client_ca": "serving/test_grpc.py",
    "night_at": "project/test_night.py", "night_zone": "project/test_night.py",
}  # fmt: skip
"""Settings that another test gives to a process, by its variable."""
WIRED = {
    "cors_origins": "serving/test_web_pages.py",
    "http_certificate": "serving/test_http_tls.py", "http_private_key": "serving/test_http_tls.py",
    "kafka_partitions": "flows/test_kafka_truth.py", "anchor_tolerance": "flows/test_erased_everywhere.py",
    "ranker": "batch/test_evaluate.py", "server_cached_items": "serving/test_service.py",
}  # fmt: skip
"""Settings that another test gives to the part that takes them, not to a process."""
UNSEEN = {"kafka_replication", "kafka_retention_ms", "log_timeout_s", "anchors_timeout_s", "item_ttl_ms"}
"""Settings without a check: they would need brokers of several nodes, or hangs of minutes. None may join them."""


def test_every_setting_has_a_check():
    kinds = [set(CHECKS), set(ELSEWHERE), set(WIRED), UNSEEN]
    assert set.union(*kinds) == set(Settings.model_fields)
    assert sum(map(len, kinds)) == len(Settings.model_fields) == 75
    assert set(FOLD) == set(FoldSettings.model_fields)
    for name, path in (ELSEWHERE | WIRED).items():
        text = (TESTS / path).read_text()
        assert f"HEADRACE_{name.upper()}" in text or (name in WIRED and f"{name}=" in text), name


@pytest.mark.parametrize("name", CHECKS)
def test_a_setting_has_its_effect_on_the_processes(unusual, name):
    CHECKS[name](unusual)
