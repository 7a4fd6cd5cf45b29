import hashlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.log.contract import LogUnavailable, Message, PositionLost, TopicReplaced
from flows.log.dead_letters import DeadLetters, read_dead_letters, redrive
from flows.log.open_log import open_log
from flows.log.read_to import read_to
from flows.log.sqlite_log import TABLES, SqliteLog
from flows.read_erased_users import read_erased
from schemas.events import DEAD_LETTERS, TOPICS, BadMessage
from schemas.ids import hash_id
from schemas.json_events import encode
from schemas.registry import FolderRegistry

T0 = 1_700_000_000_000


@pytest.fixture
def broker(tmp_path):
    from headrace.torture.local_kafka import LocalKafka

    kafka = LocalKafka(tmp_path / "kafka")
    with kafka:
        yield kafka


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'log.sqlite'}"
    kafka = request.getfixturevalue("broker")
    log = open_log(f"kafka:{kafka.bootstrap}")
    log.create_topics()
    log.close()
    return f"kafka:{kafka.bootstrap}"


@pytest.fixture
def log(url):
    log = open_log(url)
    yield log
    log.close()


def message(n, topic="product-views", value=b"v"):
    return Message(topic, f"k{n}".encode(), None if value is None else value + str(n).encode(), T0 + n)


def read_all(log, positions, max_messages=1000, wait_s=0.5):
    found, deadline = [], time.monotonic() + 10
    while time.monotonic() < deadline:
        batch = log.read(positions, max_messages, wait_s)
        if batch is None:
            break
        assert len(batch) <= max_messages
        for i in range(len(batch)):
            stream = batch.streams[batch.stream[i]]
            value = None if i in batch.tombstones else batch.value(i)
            found.append((stream, int(batch.offset[i]), value, batch.tombstones.get(i)))
        positions = batch.after
    return found, positions


def test_erasures_are_read_ahead_of_all_else_and_up_to_a_place(log):
    registry = FolderRegistry()

    def erasure(user, ts_ms):
        record = {"event_id": f"{user}{ts_ms}", "ts_ms": ts_ms, "user": user}
        return Message("erasures", b"", encode("erasures", record, registry), ts_ms)

    log.append([message(1), erasure("u", T0 + 5), erasure("w", T0 + 9), Message("erasures", b"", b"broken", T0)])
    log.append([message(2), erasure("u", T0 + 2)])
    until = log.end()
    log.append([erasure("late", T0 + 20), message(3)])
    found = read_erased(log, registry, until, T0 + 1000, 10)
    at_ms = dict(zip(found.users.tolist(), found.at.tolist(), strict=True))
    assert at_ms == {hash_id("u"): T0 + 5, hash_id("w"): T0 + 9}
    assert len(read_erased(log, registry, {"product-views:0": 2}, T0 + 1000, 10).users) == 0


def test_messages_come_back_in_order_with_their_offsets(log):
    log.append([message(0), message(1, "products", None), message(2)])
    log.append([message(3), message(4, value=b"")])
    found, after = read_all(log, {})
    views = [entry for entry in found if entry[0] == "product-views:0"]
    assert views == [("product-views:0", i, b"v%d" % n if n != 4 else b"4", None) for i, n in enumerate([0, 2, 3, 4])]
    assert ("products:0", 0, None, b"k1") in found
    assert after["product-views:0"] == 4
    assert after["products:0"] == 1
    assert set(after) == {f"{topic}:0" for topic in TOPICS}


def test_reading_resumes_at_any_position(log):
    log.append([message(n, TOPICS[n % 2]) for n in range(20)])
    whole, _ = read_all(log, {})
    for cut in (0, 1, 7, 10):
        positions = {"product-views:0": cut, "user-events:0": 10 - cut}
        found, _ = read_all(log, positions, max_messages=3)
        wanted = [entry for entry in whole if entry[1] >= positions.get(entry[0], 0)]
        assert sorted(found) == sorted(wanted)


def test_what_was_read_without_a_position_is_read_again_without_one(log):
    log.append([message(n) for n in range(10)])
    first, after = read_all(log, {})
    assert read_all(log, {})[0] == first
    partly = {"user-events:0": after["user-events:0"]}
    assert read_all(log, partly)[0] == first
    assert log.read(after, 10, 0.05) is None
    assert read_all(log, {})[0] == first


def test_nothing_to_read_is_told_after_the_timeout(log):
    assert log.read(log.end(), 10, 0.05) is None


def test_start_end_and_offsets_at_a_time(log):
    log.append([message(n) for n in range(10)])
    assert log.start()["product-views:0"] == 0
    assert log.end()["product-views:0"] == 10
    assert log.offsets_at(T0 + 4)["product-views:0"] == 4
    assert log.offsets_at(T0 + 400)["product-views:0"] == 10
    assert log.offsets_at(0)["ratings:0"] == 0


def test_a_position_that_retention_removed_is_reported_not_jumped(log):
    for n in range(4):
        log.append([message(n)])
    assert log.retain(T0 + 2) == 2
    assert log.start()["product-views:0"] == 2
    with pytest.raises(PositionLost, match="product-views:0 starts at offset 2, but the lane wants 1"):
        log.read({"product-views:0": 1}, 10, 1)
    found, _ = read_all(log, {"product-views:0": 2})
    assert [offset for _, offset, *_ in found] == [2, 3]


def test_a_position_past_the_end_says_that_the_log_is_another_one(log):
    log.append([message(0)])
    with pytest.raises(TopicReplaced, match=r"product-views:0 .* ends at 1, before position 2; .*headrace replay NAME"):
        log.read({**log.end(), "product-views:0": 2}, 10, 1)


def test_every_topic_has_an_id_that_another_reader_finds_too(log, url):
    other = open_log(url)
    assert log.topic_ids() == other.topic_ids()
    assert set(log.topic_ids()) == set(TOPICS)
    other.close()


def test_a_log_file_made_again_has_other_ids(tmp_path):
    ids = []
    for name in ("one", "two"):
        log = SqliteLog(tmp_path / name)
        ids.append(log.topic_ids()["purchases"])
        log.close()
    assert ids[0] != ids[1]


def test_a_read_brings_no_more_bytes_than_a_batch_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.log.sqlite_log.MOST_BYTES", 10_000)
    log = SqliteLog(tmp_path / "log.sqlite")
    for n in range(50):
        log.append([message(n, value=b"x" * 1000)])
    sizes, positions = [], log.start()
    while (batch := log.read(positions, 1000, 0)) is not None:
        sizes.append(len(batch))
        positions = batch.after
    assert max(sizes) <= 11
    assert sum(sizes) == 50
    log.close()


@pytest.mark.process
def test_a_reader_sees_what_another_process_appends(log, url):
    log.append([message(0)])
    positions = read_all(log, {})[1]
    program = f"""
from flows.log.contract import Message
from flows.log.open_log import open_log
log = open_log({url!r})
log.append([Message("ratings", b"k", b"hello", {T0})])
"""
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        batch = log.read(positions, 10, 20)
        assert process.wait(20) == 0
    assert batch.value(0) == b"hello"


def test_refused_messages_are_listed_once_with_their_reason(log, url):
    log.append([message(0), message(1)])
    batch = log.read({}, 10, 5)
    letters = DeadLetters(log)
    for _ in range(2):
        letters.write(batch, [BadMessage(0, "malformed", "why")], T0)
    dead = open_log(url, [DEAD_LETTERS])
    (letter,) = read_dead_letters(dead)
    dead.close()
    assert (letter.reason, letter.stream, letter.offset, letter.payload) == ("malformed", "product-views:0", 0, b"v0")


def refuse_all(log, bad="malformed"):
    """Read all and write a letter for each message."""
    positions = {}
    while (batch := log.read(positions, 1000, 1)) is not None:
        DeadLetters(log).write(batch, [BadMessage(i, bad, "why") for i in range(len(batch))], T0 + 1)
        positions = batch.after


def test_a_letter_keeps_key_headers_and_time_and_redrive_puts_each_message_back_once(log, url):
    headers = (("trace", b"\x00\xff"), ("empty", None))
    log.append([message(5), Message("products", b"gone", None, T0 + 7, headers), Message("ratings", None, b"r", T0)])
    refuse_all(log)
    before = log.end()
    dead = open_log(url, [DEAD_LETTERS])
    letters = {letter.stream.partition(":")[0]: letter for letter in read_dead_letters(dead)}
    gone = letters["products"]
    assert (gone.key, gone.payload, gone.headers, gone.message_ts_ms) == (b"gone", None, headers, T0 + 7)
    assert (letters["product-views"].key, letters["ratings"].key) == (b"k5", None)
    assert redrive(dead, list(letters.values()), T0 + 9) == (3, 0, 0, 0)
    assert redrive(dead, read_dead_letters(dead), T0 + 10) == (0, 3, 0, 0)
    dead.close()
    again = read_to(log, before, log.end(), 10)
    back = [batch.message(i) for batch in again for i in range(len(batch))]
    assert len(back) == 3
    assert {one.topic: (one.key, one.value, one.headers) for one in back} == {
        "product-views": (b"k5", b"v5", ()), "products": (b"gone", None, headers), "ratings": (None, b"r", ()),
    }  # fmt: skip


def test_letters_beyond_the_oldest_thousand_are_reached_and_filtered(log, url):
    log.append([message(n, TOPICS[n % 2]) for n in range(1200)])
    refuse_all(log)
    dead = open_log(url, [DEAD_LETTERS])
    assert len(read_dead_letters(dead, limit=5000)) == 1200
    assert len(read_dead_letters(dead, limit=1000, skip=1000)) == 200
    views = read_dead_letters(dead, 5000, wanted=lambda letter: letter.stream == "product-views:0")
    dead.close()
    assert [letter.offset for letter in views] == list(range(600))


def test_two_messages_of_one_place_have_a_letter_each_and_are_each_put_back_once(log, url):
    log.append([message(0)])
    batch = log.read({}, 10, 5)
    other = replace(batch, payload=batch.payload[::-1].copy(), original=None)  # as if the topic had been made again
    for raw in (batch, other, batch, other):
        DeadLetters(log).write(raw, [BadMessage(0, "malformed", "why")], T0)
    dead = open_log(url, [DEAD_LETTERS])
    old, new = read_dead_letters(dead)
    assert (old.place, old.payload, new.payload) == (new.place, b"v0", b"0v")
    assert redrive(dead, [old], T0 + 9) == (1, 0, 0, 0)
    assert [letter.redriven_ms for letter in read_dead_letters(dead)] == [T0 + 9, 0]
    assert redrive(dead, read_dead_letters(dead), T0 + 10) == (1, 1, 0, 0)
    assert redrive(dead, read_dead_letters(dead), T0 + 11) == (0, 2, 0, 0)
    dead.close()


@pytest.mark.kafka
def test_the_same_message_on_a_topic_made_again_has_a_letter_of_its_own(broker):
    from confluent_kafka.admin import AdminClient

    url, admin = f"kafka:{broker.bootstrap}", AdminClient({"bootstrap.servers": broker.bootstrap})
    for _ in range(2):
        log = open_log(url)
        log.create_topics()
        log.append([message(0, "ratings")])
        for _ in range(2):
            refuse_all(log)
        log.close()
        admin.delete_topics(["ratings"])["ratings"].result(10)
        while "ratings" in admin.list_topics(timeout=10).topics:
            time.sleep(0.05)
    log = open_log(url)
    log.create_topics()
    log.close()
    dead = open_log(url, [DEAD_LETTERS])
    old, new = read_dead_letters(dead)
    assert (old.place, old.payload) == (new.place, new.payload)
    assert redrive(dead, [old], T0 + 9) == (1, 0, 0, 0)
    assert redrive(dead, read_dead_letters(dead), T0 + 10) == (1, 1, 0, 0)
    dead.close()


@pytest.mark.kafka
@pytest.mark.parametrize("most_bytes", [None, 100_000])  # librdkafka refuses the one message, or the broker all of them
def test_a_letter_larger_than_the_broker_takes_keeps_head_length_and_hash(broker, most_bytes):
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    url, admin = f"kafka:{broker.bootstrap}", AdminClient({"bootstrap.servers": broker.bootstrap})
    if most_bytes:
        config = {"max.message.bytes": str(most_bytes), "retention.ms": "-1"}
        topic = NewTopic(DEAD_LETTERS, 1, 1, config=config)
        admin.create_topics([topic])[DEAD_LETTERS].result(10)
    log = open_log(url)
    log.create_topics()
    large = b"not Avro" * ((most_bytes or 920_000) // 8)  # base64 makes it too large for a letter
    log.append([message(0), Message("product-views", b"key", large, T0), message(1), message(2)])
    refuse_all(log)
    log.close()
    dead = open_log(url, [DEAD_LETTERS])
    assert sum(dead.end().values()) == 4  # none is there twice
    cut, *whole = sorted(read_dead_letters(dead), key=lambda letter: not letter.cut)
    assert cut.payload == large[: len(cut.payload)]
    assert (cut.key, cut.length, cut.sha256) == (b"key", len(large), hashlib.sha256(large).hexdigest())
    assert sorted((letter.cut, letter.payload) for letter in whole) == [(False, b"v0"), (False, b"v1"), (False, b"v2")]
    assert redrive(dead, [cut], T0) == (0, 0, 1, 0)
    dead.close()


def test_headers_are_kept_by_a_log_file_made_before_there_were_any(tmp_path):
    old = sqlite3.connect(tmp_path / "log.sqlite")
    old.executescript(TABLES.replace(", headers BLOB", ""))
    old.close()
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([Message("ratings", b"k", b"v", T0, (("a", b"b"),))])
    assert log.read({}, 5, 0).message(0) == Message("ratings", b"k", b"v", T0, (("a", b"b"),))


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), max_size=6), st.data())
def test_sqlite_returns_exactly_what_lies_at_or_past_any_positions(tmp_path_factory, appends, data):
    log = SqliteLog(tmp_path_factory.mktemp("log") / "log.sqlite")
    numbers = itertools.count()
    for topics in appends:
        log.append([message(next(numbers), TOPICS[topic]) for topic in topics])
    whole, end = read_all(log, {}, wait_s=0) if appends else ([], log.end())
    positions = {stream: data.draw(st.integers(0, end[stream])) for stream in log.start()}
    found, after = read_all(log, positions, data.draw(st.integers(1, 5)), wait_s=0)
    assert found == [entry for entry in whole if entry[1] >= positions[entry[0]]]
    assert after == (end if found else positions)
    log.close()


@pytest.mark.process
def test_an_acknowledged_append_survives_kill_minus_nine(tmp_path):
    path = tmp_path / "log.sqlite"
    program = f"""
import sys
from flows.log.contract import Message
from flows.log.read_to import read_to
from flows.log.sqlite_log import TABLES, SqliteLog
log = SqliteLog({str(path)!r})
n = log.end()["product-views:0"]
while True:
    log.append([Message("product-views", b"k", str(n + i).encode(), {T0}) for i in range(3)])
    n += 3
    print(n, flush=True)
"""
    acknowledged = 0
    for round_no in range(3):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(5 + 20 * round_no):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split("\n")[:-1] if line)])
        process.wait()
        log = SqliteLog(path)
        found, _ = read_all(log, {}, wait_s=0)
        log.close()
        assert len(found) >= acknowledged
        assert len(found) % 3 == 0
        assert [value for _, _, value, _ in found] == [str(n).encode() for n in range(len(found))]


def test_a_full_disk_refuses_the_append_whole(tmp_path):
    log = SqliteLog(tmp_path / "log.sqlite")
    log.append([message(0)])
    pages = log._writer.execute("PRAGMA page_count").fetchone()[0]
    log._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogUnavailable, match="took nothing of the append"):
        log.append([message(n, value=b"x" * 5000) for n in range(1, 9)])
    log._writer.execute("PRAGMA max_page_count = 100000")
    log.append([message(1)])
    assert [value for _, _, value, _ in read_all(log, {})[0]] == [b"v0", b"v1"]
    log.close()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="neither sqlite:PATH nor kafka"):
        open_log("ftp:there")


@pytest.mark.kafka
def test_new_partitions_are_read_without_a_restart_and_positions_are_told_to_the_broker(broker):
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewPartitions

    log = open_log(f"kafka:{broker.bootstrap}")
    log.create_topics()
    log.append([message(0)])
    found, positions = read_all(log, {}, wait_s=2)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    (grown,) = admin.create_partitions(
        [NewPartitions("product-views", 3)]
    ).values()  # fmt: skip
    grown.result(10)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce("product-views", b"new", partition=2)
    assert producer.flush(10) == 0
    deadline = time.monotonic() + 20
    while "product-views:2" not in {entry[0] for entry in found} and time.monotonic() < deadline:
        more, positions = read_all(log, positions, wait_s=0.5)
        found += more
    assert ("product-views:2", 0, b"new", None) in found
    log.report(positions)
    outside = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "headrace"})
    part = TopicPartition("product-views", 2)
    while outside.committed([part], 10)[0].offset != 1:
        assert time.monotonic() < deadline + 10
        time.sleep(0.1)
    outside.close()
    log.close()


@pytest.mark.process
def test_another_process_that_closes_a_log_leaves_the_wal_of_those_who_read_it(tmp_path):
    path = tmp_path / "log.sqlite"
    log, letters = SqliteLog(path), SqliteLog(path)  # a flow has two
    wal = (tmp_path / "log.sqlite-wal").stat().st_ino
    code = "import sys; from flows.log.sqlite_log import SqliteLog; SqliteLog(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert (tmp_path / "log.sqlite-wal").stat().st_ino == wal
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()
    letters.close()
