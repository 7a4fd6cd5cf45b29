"""Books of rules keep their bytes in Redis: a book that was put once is read by every later version."""

import typing

import pytest
from helpers.books import put_book
from helpers.golden import GOLDEN

from serving.rules.book_store import history, live_version, parse_book, read_book, read_record
from serving.rules.model import Rule
from state.rows import keys
from state.store.contract import MemoryStore

pytestmark = pytest.mark.law(n=8)

BOOK = """
rules:
- {id: only-tea, action: include, where: category == 'tea', placements: [home, tea-page], when: country == 'DE'}
- {id: no-old, action: exclude, where: price > 100, enabled: false, note: for people}
- {id: more-x, action: boost, where: brand == 'x', factor: 1.5, group: g, priority: 3}
- {id: first, action: pin, items: [i7, i8], position: 2}
- {id: week, action: promote, where: brand == 'y', positions: [1, 4],
   start: 2026-01-01T00:00:00Z, end: 2026-01-08T00:00:00+02:00}
- {id: varied, action: cap, by: brand, most: 2, first: 10}
- {id: in-stock, action: min_stock, least: 1}
- {id: earns, action: min_margin, least: 0.1}
placements:
  tea-page: {strategy: similar, count: 7, repeat: demote, diversity: 0.5, explore: 1, cache_s: 60}
experiments:
- id: ranker
  note: for people
  placements: [home]
  share: 0.5
  start: 2026-01-01T00:00:00Z
  arms:
  - {name: a}
  - {name: b, weight: 2, strategy: trending, count: 5, repeat: exclude, diversity: 0.1, explore: 2,
     without_rules: [first]}
"""
GOLDEN_BOOK = (GOLDEN / "book.json").read_bytes().rstrip(b"\n")


def put():
    store = MemoryStore()
    put_book(store, parse_book("{}"), "ann", 1_699_999_999_000)
    put_book(store, parse_book(BOOK), "kim", 1_700_000_000_000, "winter")
    return store


def test_the_book_has_every_action():
    actions = {one.model_fields["action"].annotation.__args__[0] for one in typing.get_args(typing.get_args(Rule)[0])}
    assert {rule.action for rule in parse_book(BOOK).rules} == actions
    assert len(actions) == 8


def test_a_book_keeps_its_bytes_and_its_pointer():
    store = put()
    assert store.rows[keys.rules(2)] == GOLDEN_BOOK
    assert store.rows[keys.positions(keys.RULES)] == b'{"book":2,"books:0":2,"newest":2}'


def test_the_golden_book_is_read_as_what_it_was():
    store = MemoryStore()
    store.rows = {keys.rules(2): GOLDEN_BOOK, keys.positions(keys.RULES): b'{"book":2,"newest":2}'}
    assert live_version(store) == 2
    found = read_book(store, 2)
    assert (found.book, found.version) == (parse_book(BOOK), 2)
    record = read_record(store, 2)
    assert [record[name] for name in ("version", "author", "note", "at_ms")] == [2, "kim", "winter", 1_700_000_000_000]
    assert [one["version"] for one in history(put())] == [2, 1]
