"""What a real broker keeps besides messages: marks of transactions, remains of aborted ones, gaps, topics made anew."""

import threading
import time

import pytest

from flows.log.contract import LogUnavailable, Message, MessageRefused, MessageTooLarge, TopicReplaced
from flows.log.open_log import open_log
from flows.log.read_to import read_to

pytestmark = pytest.mark.kafka
T0 = 1_700_000_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    from headrace.torture.local_kafka import LocalKafka

    kafka = LocalKafka(tmp_path_factory.mktemp("kafka"))
    with kafka:
        yield kafka


@pytest.fixture
def log(broker):
    log = open_log(f"kafka:{broker.bootstrap}")
    log.delete_topics()
    log.create_topics()
    yield log
    log.close()


def message(n, topic="purchases", value=b"v", ts_ms=None):
    return Message(topic, f"k{n}".encode(), value + str(n).encode(), ts_ms or T0 + n)


def transactional(broker, name="shop"):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": name, "linger.ms": 0})
    producer.init_transactions(30)
    return producer


def produce(producer, *numbers, topic="purchases"):
    for n in numbers:
        producer.produce(topic, b"v%d" % n, f"k{n}", timestamp=T0 + n)
    producer.flush(10)


def wait_for_end(log, **ends):
    """Wait until the broker has written the marks of transactions, which it does after it confirmed them."""
    deadline = time.monotonic() + 20
    while any(log.end()[f"{topic.replace('_', '-')}:0"] < end for topic, end in ends.items()):
        assert time.monotonic() < deadline, log.end()
        time.sleep(0.02)


def read_everything(log, patience_s=10):
    end = log.end()
    found, after = [], {}
    for batch in read_to(log, log.start(), end, patience_s):
        found += [batch.value(i) for i in range(len(batch))]
        after = batch.after
    return found, after


def read_for(log, positions, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        batch = log.read(positions, 10, 0.2)
        positions = batch.after if batch else positions


def test_reading_comes_to_the_end_behind_the_mark_of_a_commit(broker, log):
    shop = transactional(broker)
    shop.begin_transaction()
    produce(shop, 1, 2, 3)
    shop.commit_transaction(10)
    wait_for_end(log, purchases=4)
    found, after = read_everything(log)
    assert (found, after) == ([b"v1", b"v2", b"v3"], log.end())


def test_reading_passes_what_an_aborted_transaction_left(broker, log):
    shop = transactional(broker)
    log.append([message(0)])
    shop.begin_transaction()
    produce(shop, 1, 2, 3)
    shop.abort_transaction(10)
    wait_for_end(log, purchases=5)
    found, after = read_everything(log)
    assert (found, after) == ([b"v0"], log.end())
    log.append([message(9)])
    batch = log.read(after, 10, 5)
    assert [batch.value(i) for i in range(len(batch))] == [b"v9"]


def test_a_log_of_nothing_but_aborted_messages_is_read_to_its_end(broker, log):
    shop = transactional(broker)
    shop.begin_transaction()
    produce(shop, *range(50))
    shop.abort_transaction(10)
    wait_for_end(log, purchases=51)
    assert read_everything(log) == ([], log.end())


def test_the_end_lies_before_a_transaction_that_is_open_and_what_is_behind_it_is_not_skipped(broker, log):
    shop = transactional(broker)
    log.append([message(0)])
    shop.begin_transaction()
    produce(shop, 1)
    log.append([message(2)])
    found, after = read_everything(log)
    assert (found, after["purchases:0"]) == ([b"v0"], 1)
    shop.commit_transaction(10)
    wait_for_end(log, purchases=4)
    more, positions = [], after
    for batch in read_to(log, positions, log.end(), 10):
        more += [batch.value(i) for i in range(len(batch))]
    assert more == [b"v1", b"v2"]


def test_who_reads_uncommitted_sees_what_is_open(broker, log):
    shop = transactional(broker)
    shop.begin_transaction()
    produce(shop, 1)
    reading = open_log(f"kafka:{broker.bootstrap}", config={"isolation.level": "read_uncommitted"})
    assert read_everything(reading)[0] == [b"v1"]
    reading.close()
    shop.abort_transaction(10)
    with pytest.raises(ValueError, match=r"isolation\.level must be one of read_committed, read_uncommitted"):
        open_log(f"kafka:{broker.bootstrap}", config={"isolation.level": "serializable"})


def test_messages_appended_as_a_whole_are_all_there_or_none(log):
    log.append_whole([message(1), message(2, "product-views"), message(3)])
    wait_for_end(log, purchases=3, product_views=2)
    found, after = read_everything(log)
    assert (sorted(found), after) == ([b"v1", b"v2", b"v3"], log.end())
    ahead = message(5, "product-views", ts_ms=(time.time_ns() // 1_000_000) + 2 * 3_600_000)
    with pytest.raises(MessageRefused) as refused:
        log.append_whole([message(4), ahead, message(6)])
    assert refused.value.index == 1
    with pytest.raises(MessageTooLarge) as refused:
        log.append_whole([message(7), message(8, value=b"x" * 2_000_000)])
    assert refused.value.index == 1
    log.append_whole([message(9), message(10)])
    wait_for_end(log, purchases=9)
    log.append_whole([message(11)])
    assert sorted(read_everything(log)[0]) == [b"v1", b"v10", b"v11", b"v2", b"v3", b"v9"]


def test_an_append_takes_all_messages_but_those_it_names_as_refused(log):
    ahead = message(2, "product-views", ts_ms=(time.time_ns() // 1_000_000) + 2 * 3_600_000)
    with pytest.raises(MessageTooLarge) as refused:
        log.append([message(0), message(1, value=b"x" * 2_000_000), ahead, message(3), message(4, "ratings")])
    assert refused.value.indices == (1, 2)
    assert sorted(read_everything(log)[0]) == [b"v0", b"v3", b"v4"]


def test_calls_that_come_together_share_a_transaction_and_a_refused_one_goes_alone(log):
    ahead = message(0, ts_ms=(time.time_ns() // 1_000_000) + 2 * 3_600_000)
    outcomes = {}

    def call(n):
        try:
            log.append_whole([message(n), ahead if n == 105 else message(n + 1000)])
            outcomes[n] = "taken"
        except LogUnavailable as error:
            outcomes[n] = type(error).__name__ if isinstance(error, MessageRefused) else repr(error)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(100, 112)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {n: "MessageRefused" if n == 105 else "taken" for n in range(100, 112)}
    time.sleep(1)
    found = read_everything(log)[0]
    taken = [n for n in range(100, 112) if n != 105]
    assert sorted(found) == sorted(b"v%d" % n for n in [*taken, *(n + 1000 for n in taken)])


def test_after_a_fatal_error_a_new_producer_takes_the_next_call(broker, log):
    log.append_whole([message(1), message(2)])
    transactional(broker, log._producer._transactions.transactional_id)  # fences the log's own
    with pytest.raises(LogUnavailable):
        log.append_whole([message(3), message(4)])
    log.append_whole([message(5), message(6)])
    time.sleep(1)
    assert sorted(read_everything(log)[0]) == [b"v1", b"v2", b"v5", b"v6"]


def test_a_call_awaits_its_own_messages_and_not_those_of_others(broker, log):
    log.append([message(0)])
    outcome = []

    def refused():
        with pytest.raises(LogUnavailable) as error:
            log.append([message(1, "no-such-topic")])
        outcome.append(error.value)

    stuck = threading.Thread(target=refused)
    stuck.start()
    time.sleep(0.3)
    for n in range(20):
        log.append([message(n)])
    assert stuck.is_alive(), "the topic that is missing was not waited for"
    stuck.join(30)
    assert outcome


@pytest.mark.parametrize("n_read", [0, 3])
def test_a_topic_made_again_is_noticed_by_who_is_reading(broker, log, n_read):
    log.append([message(n) for n in range(5)])
    reading = open_log(f"kafka:{broker.bootstrap}")
    _, positions = read_everything(reading)
    log.delete_topics()
    log.create_topics()
    log.append([message(n) for n in range(n_read)])
    with pytest.raises(TopicReplaced, match=r"purchases.*headrace replay NAME.*headrace switch NAME"):
        read_for(reading, positions, 20)
    reading.close()


def test_a_position_past_the_end_of_a_topic_is_noticed(broker, log):
    log.append([message(n) for n in range(5)])
    reading = open_log(f"kafka:{broker.bootstrap}")
    with pytest.raises(TopicReplaced, match=r"purchases:0 .* ends at 5, before position 6"):
        reading.read({**log.end(), "purchases:0": 6}, 10, 1)
    reading.close()


def test_products_are_compacted_and_the_rest_is_kept_as_long_as_the_setting_says(broker, log):
    from confluent_kafka.admin import AdminClient, ConfigResource

    log.delete_topics()
    log.create_topics(retention_ms=1_000_000_000)
    log.append([message(1)])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    asked = [ConfigResource("topic", name) for name in ("products", "product-views", "erasures")]
    found = {one.name: future.result(10) for one, future in admin.describe_configs(asked).items()}
    assert found["products"]["cleanup.policy"].value == "compact"
    assert found["product-views"]["retention.ms"].value == "1000000000"
    assert (found["product-views"]["cleanup.policy"].value, found["erasures"]["retention.ms"].value) == ("delete", "-1")


def test_topics_that_are_all_there_are_left_as_they_are(broker, log, tmp_path, capsys):
    from headrace.cli.topics import run
    from headrace.settings import Settings

    ids = log.topic_ids()
    assert run(Settings(log_url=f"kafka:{broker.bootstrap}", data_dir=tmp_path, kafka_partitions=3)) == 0
    assert "all topics are there" in capsys.readouterr().err
    assert (log.topic_ids(), len(log.end())) == (ids, len(ids))


def test_products_take_no_message_without_a_key(log):
    with pytest.raises(MessageRefused):
        log.append([Message("products", None, b"v", T0)])


def test_reading_passes_the_gaps_that_compaction_leaves(broker, log):
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    quick = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.0", "delete.retention.ms": "100"}
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in quick.items()]
    for future in admin.incremental_alter_configs(
        [ConfigResource("topic", "products", incremental_configs=entries)]
    ).values():
        future.result(10)
    deadline, n, first = time.monotonic() + 60, 0, None
    while first != [b"v1"] and time.monotonic() < deadline:  # the oldest messages of the key are compacted away
        for _ in range(20):
            log.append([Message("products", b"same", b"old", T0 + n)])
            n += 1
        log.append([Message("products", b"other", b"v1", T0 + n)])
        n += 1
        time.sleep(0.5)
        found, after = read_everything(log)
        assert after == log.end()
        first = None if len(found) == n else [b"v1"]
    assert first == [b"v1"], "nothing was compacted"


def test_a_read_that_comes_no_closer_to_the_end_fails(log):
    log.append([message(1)])
    with pytest.raises(LogUnavailable, match="before the end of the log do not come"):
        list(read_to(log, log.start(), {**log.end(), "purchases:0": 7}, 1.0))
