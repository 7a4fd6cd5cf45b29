"""Two owners of one lane, whose messages to Redis come in every order."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.rows import keys
from state.store.contract import Fenced
from state.store.fenced_connection import FencedConnection
from state.store.redis_store import RedisStore

LANE = keys.prefix("g1", 0)
SMALL, LARGE = 3, 250
ROWS = [LANE + b"u:%d" % i for i in range(LARGE)]
VECTORS = [LANE + b"v:%d" % i for i in range(LARGE)]


class Turns:
    """Lets one of several threads go on at a time, from one message to the next."""

    def __init__(self, works):
        self._go = [threading.Semaphore(0) for _ in works]
        self._waits = [threading.Event() for _ in works]
        self._errors = []
        self._threads = [threading.Thread(target=self._run, args=pair, daemon=True) for pair in enumerate(works)]
        self._places, self._running = {}, set(range(len(works)))

    def _run(self, place, work):
        self._places[threading.get_ident()] = place
        try:
            self.wait()
            work(self)
        except BaseException as error:
            self._errors.append(error)
        self._running.remove(place)
        self._waits[place].set()

    def wait(self):
        """Called by a thread before it sends: wait for its turn."""
        place = self._places[threading.get_ident()]
        self._waits[place].set()
        assert self._go[place].acquire(timeout=20)

    def play(self, order):
        """Give turns in this order, then by turns until all have ended."""
        for thread, waits in zip(self._threads, self._waits, strict=True):
            thread.start()
            assert waits.wait(20)
        n_given = 0
        while self._running:
            place = order[n_given] if n_given < len(order) else n_given % len(self._threads)
            n_given += 1
            if place in self._running:
                self._waits[place].clear()
                self._go[place].release()
                assert self._waits[place].wait(20)
        if self._errors:
            raise self._errors[0]


def opened(store):
    """Return the lane's position; a commit of the other one is finished first, and that one may fence us."""
    while True:
        try:
            return store.positions(LANE).get("a:0", 0)
        except Fenced:
            continue


def owner(url, n_tries):
    """Return the work of an owner: add one to every row of a commit, as a flow adds events.

    With each row comes what depends on it alone, as a vector does; every third time those are only written again.
    """

    def work(turns):
        store = RedisStore(url)
        at = opened(store)
        for tried in range(n_tries):
            turns.wait()
            n_rows = SMALL if at % 2 else LARGE
            added = int(tried % 3 < 2)
            counts = [int(value or 0) + added for value in store.read(ROWS[:n_rows])]
            rows = {name: b"%d" % count for name, count in zip(VECTORS, counts, strict=False)}
            positions = {"a:0": at} if at else {}
            try:
                if added:
                    rows |= {name: b"%d" % count for name, count in zip(ROWS, counts, strict=False)}
                    store.commit(LANE, positions, {"a:0": at + 1}, rows)
                    at += 1
                else:
                    store.refresh(LANE, positions, rows)
            except Fenced:
                at = opened(store)
        store.close()

    return work


@pytest.mark.redis
@settings(max_examples=80)
@given(st.lists(st.integers(0, 1), min_size=20, max_size=120))
def test_every_commit_of_two_owners_is_made_once(server, order):
    server.client().flushall()
    turns = Turns([owner(server.url, 6), owner(server.url, 6)])
    with pytest.MonkeyPatch.context() as patch:
        send = FencedConnection._write

        def send_in_turn(self, parts):
            turns.wait()
            send(self, parts)

        patch.setattr(FencedConnection, "_write", send_in_turn)
        turns.play(order)
    store = RedisStore(server.url)
    at = store.positions(LANE)["a:0"]
    values = [int(value) for value in store.read(ROWS)]
    assert (set(values[:SMALL]), set(values[SMALL:])) == ({at}, {(at + 1) // 2})
    assert store.read(VECTORS) == store.read(ROWS)
    assert store.read([keys.redo(LANE)]) == [None]
    store.close()
