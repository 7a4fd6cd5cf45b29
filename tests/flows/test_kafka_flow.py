"""Flows and commands on a real broker: transactions leave no lag, and a topic made anew is noticed and mended."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from helpers.flows import REGISTRY, T0, position, rows_of, start, stop, view, wait_for, wait_until
from helpers.rich_streams import PLAIN, rich_stream

from flows.log.contract import Message
from flows.log.open_log import open_log
from schemas.json_events import encode
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.store.contract import decode_positions
from state.store.redis_store import RedisStore

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A broker with three purchases in a committed transaction and two in an aborted one, and a Redis."""
    from confluent_kafka import Producer

    from headrace.torture.local_kafka import LocalKafka

    folder = tmp_path_factory.mktemp("kafka")
    kafka = LocalKafka(folder / "kafka")
    with kafka, EmbeddedRedis(folder / "redis") as redis:
        log = open_log(f"kafka:{kafka.bootstrap}")
        log.create_topics()
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": "shop"})
        producer.init_transactions(30)
        for names, end in ((("a", "b", "c"), producer.commit_transaction), (("d", "e"), producer.abort_transaction)):
            producer.begin_transaction()
            for name in names:
                record = {"event_id": name, "ts_ms": T0, "user": f"u{name}", "order_id": name,
                          "lines": [{"item": "tea", "quantity": 1.0}]}  # fmt: skip
                producer.produce("purchases", encode("purchases", record, REGISTRY), b"k", timestamp=T0)
            producer.flush(10)
            end(10)
        yield f"kafka:{kafka.bootstrap}", redis, log, folder
        log.close()


def headrace(shop, *arguments):
    url, redis, _, folder = shop
    environment = os.environ | {
        "HEADRACE_LOG_URL": url, "HEADRACE_REDIS_URL": redis.url, "HEADRACE_GENERATION": "g1",
        "HEADRACE_DATA_DIR": str(folder), "HEADRACE_CONNECT_TIMEOUT_S": "10",
    }  # fmt: skip
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def flow(shop):
    url, redis, _, folder = shop
    return start("loop", "", redis.url, "g1", HEADRACE_LOG_URL=url, HEADRACE_DATA_DIR=str(folder))


def lag(shop):
    found = json.loads(headrace(shop, "status", "--json").stdout)
    return found["generations"]["g1"]["lanes"][0]["lag"]


def test_transactions_leave_no_lag_and_every_command_reads_to_the_end(shop):
    process = flow(shop)
    wait_until(lambda: position_of(shop, "g1").get("purchases:0", 0) == 7)
    assert lag(shop) == 0
    stop(process)
    done = headrace(shop, "replay", "again", "--json")
    assert (done.returncode, json.loads(done.stdout)["finished"]) == (0, True), done.stderr
    assert json.loads(headrace(shop, "diff", "g1", "again", "--json").stdout)["share_differing"] == 0
    trained = headrace(shop, "anchor")
    assert "there is too little to train on" in trained.stderr  # of one item; but it came to the end of the log


def position_of(shop, generation):
    store = RedisStore(shop[1].url)
    found = decode_positions(store.read([keys.positions(keys.prefix(generation, 0))])[0])
    store.close()
    return found


def test_a_flow_stops_at_a_topic_made_anew_and_so_does_the_next_until_a_replay_mends_it(shop):
    _, redis, log, _ = shop
    store = RedisStore(redis.url)
    process = flow(shop)
    log.append([view(n) for n in range(20)])
    wait_for(store, "g1", 20, process)
    log.delete_topics()
    log.create_topics()
    log.append([view(n, f"new{n}") for n in range(3)])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "deleted and made again" in errors
    assert "headrace replay NAME" in errors
    log.append([Message("product-views", b"k", view(n, f"more{n}").value, T0) for n in range(30)])
    again = flow(shop)
    _, errors = again.communicate(timeout=100)
    assert again.returncode == 1
    assert "deleted and made again since generation g1 read it" in errors
    assert position(store, "g1") <= 20
    assert headrace(shop, "replay", "fresh").returncode == 0
    assert headrace(shop, "switch", "fresh").returncode == 0
    store.close()
    url, folder = shop[0], shop[3]
    mended = start("loop", "", redis.url, "fresh", HEADRACE_LOG_URL=url, HEADRACE_DATA_DIR=str(folder))
    log.append([view(n, f"last{n}") for n in range(2)])
    wait_for(RedisStore(redis.url), "fresh", 35, mended)
    stop(mended)


@pytest.mark.bytewax
@pytest.mark.law(n=2)
def test_bytewax_folds_a_backlog_of_several_topics_and_partitions_into_the_rows_of_the_loop(shop):
    url, redis, log, folder = shop
    store = RedisStore(redis.url)
    log.delete_topics()
    log.create_topics(partitions=2)
    messages = [  # each at a time of its own, so that there is one order of them all
        Message(topic, str(record.get("user")).encode(), encode(topic, record, REGISTRY), T0 + n)
        for n, (topic, record) in enumerate(rich_stream(5, replace(PLAIN, n_events=1500)))
    ]
    log.append(messages)
    end, kinds = log.end(), {"loop": "1", "bytewax": "1", "bytewax.run -w 2": "2"}
    found = {}
    for lanes in ("1", "2"):
        for driver in [kind for kind, most in kinds.items() if most <= lanes]:
            generation = f"rich-{lanes}-{len(found)}"
            process = start(driver, "", redis.url, generation, HEADRACE_LOG_URL=url, HEADRACE_DATA_DIR=str(folder),
                            HEADRACE_N_LANES=lanes)  # fmt: skip
            of = [keys.positions(keys.prefix(generation, lane)) for lane in range(int(lanes))]

            def done(of=of, process=process):
                at = [decode_positions(value) for value in store.read(of)]
                return process.poll() is not None or all({**one, **end} == one for one in at)

            wait_until(done)
            stop(process)
            found[lanes, driver] = [rows_of(store, generation, lane) for lane in range(int(lanes))]
    store.close()
    for (lanes, driver), rows in found.items():
        assert rows == found[lanes, "loop"], driver
    assert len(found["1", "loop"][0]) > 200
