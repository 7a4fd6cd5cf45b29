"""Books of rules in the log: Redis holds a copy that can be lost, and of two puts at a time one is refused."""

import pytest
from helpers.books import books_of
from helpers.golden import golden_bytes
from hypothesis import given
from hypothesis import strategies as st

from flows.books import BookConflict, Books
from flows.log.contract import LogUnavailable, Message
from flows.log.open_log import open_log
from flows.log.sqlite_log import SqliteLog
from schemas.events import BOOKS, TOPICS
from schemas.json_events import encode
from schemas.records import read_value
from schemas.registry import FolderRegistry
from state.rows import keys
from state.store.contract import MemoryStore, StoreUnavailable, decode_positions

REGISTRY = FolderRegistry()
RECORD = {
    "version": 3, "ts_ms": 1_700_000_000_123, "author": "kim", "note": "winter", "book": '{"rules":[]}', "text": "# a",
}  # fmt: skip


def book(name):
    return {"rules": [{"id": name, "action": "min_stock", "least": 1}]}


def live(store):
    return decode_positions(store.rows.get(keys.positions(keys.RULES))).get("book", 0)


def test_a_redis_that_lost_its_data_gets_every_version_back(tmp_path):
    store = MemoryStore()
    books = books_of(store, tmp_path)
    assert [books.put(book(f"r{n}"), "ann", n, f"note {n}", text=f"# {n}") for n in range(50)] == list(range(1, 51))
    before = dict(store.rows)
    store.rows.clear()
    assert books.catch_up() == 50
    assert store.rows == before
    assert books.catch_up() == 50


def test_a_book_made_from_another_than_the_live_one_is_refused(tmp_path):
    books = books_of(MemoryStore(), tmp_path)
    assert books.put(book("a"), "ann", 1, based_on=0) == 1
    with pytest.raises(BookConflict, match="the live book is version 1, and this one was made from 0") as refused:
        books.put(book("b"), "bob", 2, based_on=0)
    assert refused.value.live == 1
    assert books.put(book("b"), "bob", 2, based_on=1) == 2


def test_of_two_puts_at_the_same_time_the_first_in_the_log_counts_whoever_folds_it(tmp_path):
    store = MemoryStore()

    class Raced(Books):
        def _append(self, log, record):
            super()._append(log, {**record, "author": "first"})
            super()._append(log, record)

    raced = Raced(store, lambda: SqliteLog(tmp_path / "log.sqlite", [BOOKS]), REGISTRY)
    with pytest.raises(BookConflict, match="somebody else put one"):
        raced.put(book("a"), "second", 1)
    assert b'"author":"first"' in store.rows[keys.rules(1)]
    store.rows.clear()
    assert books_of(store, tmp_path).catch_up() == 1
    assert b'"author":"first"' in store.rows[keys.rules(1)]


class _Failing(MemoryStore):
    """A store that fails at its n-th write."""

    left = 10**9

    def write(self, rows):
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailable("away")
        super().write(rows)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_put_that_dies_behind_the_log_becomes_live_with_the_next_catch_up(tmp_path, failing):
    store = _Failing()
    books = books_of(store, tmp_path)
    books.put(book("a"), "ann", 1)
    store.left = failing
    if not failing:
        with pytest.raises(StoreUnavailable):
            books.put(book("b"), "bob", 2)
        assert live(store) == 1
    store.left = 10**9
    assert books.catch_up() == 2 - failing


def test_a_store_that_takes_no_writes_puts_nothing_into_the_log(tmp_path):
    class ReadOnly(MemoryStore):
        def positions(self, prefix):
            raise StoreUnavailable("NOPERM")

    with pytest.raises(StoreUnavailable):
        books_of(ReadOnly(), tmp_path).put(book("a"), "ann", 1)
    assert books_of(MemoryStore(), tmp_path).catch_up() == 0


def test_books_of_an_older_version_and_of_a_topic_made_again_are_written_to_the_log(tmp_path):
    store = MemoryStore()
    old = books_of(store, tmp_path / "old")
    old.put(book("a"), "ann", 1)
    old.put(book("b"), "bob", 2)
    store.rows[keys.positions(keys.RULES)] = b'{"book":2,"newest":2}'  # as an older version left it
    before = {key: value for key, value in store.rows.items() if key != keys.positions(keys.RULES)}
    new = books_of(store, tmp_path / "new")
    assert new.put(book("c"), "cem", 3) == 3
    store.rows.clear()
    assert new.catch_up() == 3
    assert before.items() <= store.rows.items()


@pytest.mark.kafka
def test_on_kafka_books_have_a_partition_of_their_own_and_come_back(tmp_path):
    from headrace.torture.local_kafka import LocalKafka

    store = MemoryStore()
    with LocalKafka(tmp_path / "kafka") as kafka:
        address = f"kafka:{kafka.bootstrap}"
        books = Books(store, lambda: open_log(address, [BOOKS]), REGISTRY)
        with pytest.raises(LogUnavailable, match="`headrace topics` creates all of them"):
            books.put(book("early"), "ann", 1)
        log = open_log(address)
        log.create_topics(partitions=4, retention_ms=1)
        log.close()
        assert [books.put(book(f"r{n}"), "ann", n) for n in range(3)] == [1, 2, 3]
        assert decode_positions(store.rows[keys.positions(keys.RULES)]) == {"book": 3, "newest": 3, "books:0": 3}
        before = dict(store.rows)
        store.rows.clear()
        assert books.catch_up() == 3
        assert store.rows == before


def test_what_is_no_book_is_passed_over(tmp_path):
    store, log = MemoryStore(), SqliteLog(tmp_path / "log.sqlite", [BOOKS])
    bad = (
        encode(BOOKS, {**RECORD, "book": "5"}, REGISTRY),
        encode(BOOKS, {**RECORD, "version": 0}, REGISTRY),
        b"nonsense",
    )
    log.append([Message(BOOKS, b"book", value, 1) for value in (*bad, encode(BOOKS, RECORD, REGISTRY))])
    log.close()
    assert books_of(store, tmp_path).catch_up() == 3


def test_a_flow_does_not_read_books_and_retention_keeps_them(tmp_path):
    store = MemoryStore()
    books = books_of(store, tmp_path)
    books.put(book("a"), "ann", 1)
    log = SqliteLog(tmp_path / "log.sqlite")
    assert (log.read({}, 10, 0.0), set(log.end())) == (None, {f"{topic}:0" for topic in TOPICS})
    log.append([Message("product-views", None, b"x", 5)])
    books.put(book("b"), "ann", 2)
    assert log.retain(10**13) == 1
    log.close()
    store.rows.clear()
    assert books.catch_up() == 2


def test_a_log_that_cannot_be_read_is_said_and_nothing_is_put(tmp_path):
    def away():
        raise LogUnavailable("away")

    with pytest.raises(LogUnavailable):
        Books(MemoryStore(), away, REGISTRY).put(book("a"), "ann", 1)


def test_a_message_keeps_its_bytes():
    assert encode(BOOKS, RECORD, REGISTRY) == golden_bytes("topics/books")
    assert read_value(golden_bytes("topics/books"), BOOKS, REGISTRY) == RECORD


@pytest.mark.law(n=4)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.data())
def test_a_fold_that_is_cut_anywhere_and_begins_again_gives_the_same_rows(tmp_path_factory, versions, data):
    folder, whole, cut = tmp_path_factory.mktemp("books"), MemoryStore(), MemoryStore()
    log = SqliteLog(folder / "log.sqlite", [BOOKS])
    for n, version in enumerate(versions):
        log.append([Message(BOOKS, b"book", encode(BOOKS, {**RECORD, "version": version, "ts_ms": n}, REGISTRY), n)])
        if data.draw(st.booleans()):
            books_of(cut, folder).catch_up()
        if data.draw(st.booleans()) and keys.positions(keys.RULES) in cut.rows:  # an older copy of the position
            at = decode_positions(cut.rows[keys.positions(keys.RULES)])
            cut.rows[keys.positions(keys.RULES)] = b'{"book":%d,"books:0":0,"newest":%d}' % (at["book"], at["newest"])
    log.close()
    assert books_of(cut, folder).catch_up() == books_of(whole, folder).catch_up() == max(versions)
    assert cut.rows == whole.rows
