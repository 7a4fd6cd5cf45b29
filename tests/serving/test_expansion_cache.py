import math

import numpy as np
import pytest

from serving.scoring.candidate_table import new_candidate_table
from serving.scoring.expansion_cache import expand, new_expansion_cache
from serving.scoring.item_features import ItemTable
from serving.scoring.scorer import NO_EMBEDDING, Scorer
from serving.scoring.second_order import walk_two_steps
from serving.scoring.sessions import padded_sessions
from state.rows.item_rows import MAX_NEIGHBOURS, empty_items
from state.rows.lane_rows import SESSIONS, SIZE
from state.rows.slot_map import SlotMap

N, SESSIONS_SEEN = 200, 5000


def table(n_rows=N):
    """Rows of items with random pairs; the last ones are neighbours that have no rows where `n_rows` is less than N."""
    rng = np.random.default_rng(5)
    rows, slots = empty_items(N), SlotMap(N)
    ids = rng.integers(1, 2**63, N).astype(np.uint64)
    for slot in slots.assign(ids[:n_rows]).tolist():
        n = int(rng.integers(1, MAX_NEIGHBOURS + 1))
        rows["n"][slot], rows["neighbour"][slot, :n] = n, np.sort(rng.choice(np.delete(ids, slot), n, replace=False))
        rows["weight"][slot, :, :n] = rng.integers(1, 500, (3, n))
        rows["total"][slot] = rows["weight"][slot].sum(axis=1)
        rows["support"][slot] = rng.integers(0, 20_000)
    return rows, slots, ids


def looked(of, slot, expansion, two_steps=True):
    rows, slots, ids = of
    items = ItemTable(rows, slots.table, slots.slot_at, NO_EMBEDDING)
    walk_two_steps(items, slot, ids[slot], expansion.second, new_candidate_table())
    expand(items, slot, ids[slot], SESSIONS_SEEN, two_steps, expansion)
    return expansion.rows["first"][slot].copy(), expansion.rows["second"][slot].copy()


def at(expansion, now, oldest):
    return expansion._replace(second=expansion.second._replace(now=now, oldest=oldest))


def lift(of, item):
    rows, slots, _ = of
    slot = int(slots.find(np.array([item], np.uint64))[0])
    support = max(int(rows["support"][slot]), 1) if slot >= 0 else 1
    return 1 + 0.5 * math.log(max(SESSIONS_SEEN / support, 1))


@pytest.mark.parametrize("n_rows", [N, N // 2])
@pytest.mark.parametrize("oldest", [1, -(10**15)], ids=["for one call", "for ever"])
def test_leads_are_shares_times_how_rare_items_are(n_rows, oldest):
    of = table(n_rows)
    rows, expansion = of[0], at(new_expansion_cache(N), 1, oldest)
    for slot in range(20):
        first, second = looked(of, slot, expansion)
        row, two = rows[slot], expansion.second.rows[slot]
        mass = (row["total"] * [1, 1, 0.8]).sum() / 100 + 2
        shares = (row["weight"].T * [1, 1, 0.8]).sum(axis=1) / 100 / mass
        n, m = int(row["n"]), int(two["n"])
        expected = [share * lift(of, item) for share, item in zip(shares[:n], row["neighbour"][:n], strict=True)]
        assert first[:n].tolist() == pytest.approx(expected, rel=1e-12)
        expected = [0.3 * share * lift(of, item) for share, item in zip(two["share"][:m], two["item"][:m], strict=True)]
        assert m
        assert second[:m].tolist() == pytest.approx(expected, rel=1e-12)


def test_leads_are_kept_until_they_are_too_old_or_the_row_was_read_again_or_is_another_items():
    of = table()
    rows, _, ids = of
    expansion = at(new_expansion_cache(N), 1_000, 900)
    first, second = looked(of, 5, expansion)
    rows["support"][:] = 1
    again = looked(of, 5, at(expansion, 1_050, 1_000))
    assert np.array_equal(np.concatenate(again), np.concatenate((first, second)))
    rare, rare_second = looked(of, 5, at(expansion, 1_101, 1_001))
    assert (rare >= first).all()
    assert (rare != first).any()
    assert (rare_second != second).any()
    rows["weight"][5] *= 2
    expansion.read_in[5] += 1
    n = rows["n"][5]
    assert (looked(of, 5, at(expansion, 1_102, 1_001))[0][:n] > 1.9 * rare[:n]).all()
    ids[5] += 1
    expansion.rows["first"][5] = 0
    assert looked(of, 5, at(expansion, 1_103, 1_001))[0].any()


def test_leads_to_items_without_rows_are_worked_out_again_and_two_steps_only_where_they_are_asked_for():
    of = table(N // 2)
    rows, slots, ids = of
    expansion = at(new_expansion_cache(N), 1_000, 900)
    before, none = looked(of, 5, expansion, two_steps=False)
    assert not none.any()
    for slot in slots.assign(ids[N // 2 :]).tolist():
        rows["support"][slot] = SESSIONS_SEEN
    after, second = looked(of, 5, at(expansion, 1_001, 900))
    assert (after <= before).all()
    assert (after < before).any()
    assert second.any()


def test_a_scorer_that_keeps_leads_sees_a_row_that_was_read_again_at_once():
    rows, slots, ids = table()
    totals = np.zeros(SIZE, np.int64)
    totals[SESSIONS] = SESSIONS_SEEN
    kept, read_in, session = Scorer(max_age_ms=30_000), np.zeros(N, np.int64), padded_sessions([ids[[3, 5]]])
    before = kept.score(session, rows, slots, totals, 1_000_000, read_in=read_in)
    rows["weight"][5], rows["total"][5] = rows["weight"][5][:, ::-1], rows["total"][5]
    unread = kept.score(session, rows, slots, totals, 1_000_001, read_in=read_in)
    read_in[5] += 1
    after = kept.score(session, rows, slots, totals, 1_000_002, read_in=read_in)
    assert not np.array_equal(before.probability, after.probability)
    assert not np.array_equal(unread.probability, after.probability)
