import numpy as np
import pytest

from serving.scoring.candidate_table import new_candidate_table
from serving.scoring.item_features import ItemTable
from serving.scoring.scorer import NO_EMBEDDING
from serving.scoring.second_order import KEPT, second_order, walk_two_steps
from state.rows.item_rows import MAX_NEIGHBOURS, empty_items
from state.rows.slot_map import SlotMap

N = 300


@pytest.fixture(scope="module")
def table():
    """Rows of N items with random pairs: most lead to more items than are kept, two to fewer or none."""
    rng = np.random.default_rng(5)
    rows, slots = empty_items(N), SlotMap(N)
    ids = rng.integers(1, 2**63, N).astype(np.uint64)
    for slot in slots.assign(ids).tolist():
        n = {0: 0, 1: 1}.get(slot, int(rng.integers(10, MAX_NEIGHBOURS + 1)))
        others = np.sort(rng.choice(np.delete(ids, slot), n, replace=False))
        rows["n"][slot], rows["neighbour"][slot, :n] = n, others
        rows["weight"][slot, :, :n] = rng.integers(0, 500, (3, n))
        rows["total"][slot] = rows["weight"][slot].sum(axis=1) + rng.integers(0, 300, 3)
    return rows, slots, ids


def slowly(rows, slots, item):
    """Return {item: share} of all that lies two steps from an item: the definition."""
    slot_of = {int(one): int(slots.find(np.array([one], np.uint64))[0]) for one in slots.id_of}

    def shares(x):
        row = rows[slot_of[x]]
        mass = (row["total"] * [1, 1, 0.8]).sum() / 100
        n = int(row["n"])
        weights = (row["weight"][:, :n].T * [1, 1, 0.8]).sum(axis=1) / 100 / (mass + 2)
        return dict(zip(row["neighbour"][:n].tolist(), weights.tolist(), strict=True))

    found = {}
    for k, through in shares(item).items():
        if through >= 0.02:
            for j, onward in shares(k).items():
                if j != item:
                    found[j] = found.get(j, 0) + through * onward
    return found


def looked(table, slot, second, found):
    rows, slots, ids = table
    walk_two_steps(ItemTable(rows, slots.table, slots.slot_at, NO_EMBEDDING), slot, ids[slot], second, found)
    row = second.rows[slot]
    return dict(zip(row["item"][: row["n"]].tolist(), row["share"][: row["n"]].tolist(), strict=True))


def test_the_strongest_of_two_steps_are_kept(table):
    second, found = second_order(N), new_candidate_table()
    more = 0
    for slot in range(60):
        expected = slowly(*table[:2], int(table[2][slot]))
        strongest = dict(sorted(expected.items(), key=lambda one: -one[1])[:KEPT])
        assert looked(table, slot, second, found) == pytest.approx(strongest, rel=1e-12)
        more += len(expected) > KEPT
    assert more > 30


def test_what_was_worked_out_is_kept_until_it_is_too_old_or_the_slot_is_another_items(table):
    rows, slots, ids = table[0].copy(), *table[1:]
    second, found = second_order(N)._replace(now=1_000, oldest=900), new_candidate_table()
    before = looked((rows, slots, ids), 5, second, found)
    rows["weight"][:] = rows["weight"][:, ::-1]
    assert looked((rows, slots, ids), 5, second._replace(now=1_050, oldest=1_000), found) == before
    after = looked((rows, slots, ids), 5, second._replace(now=1_101, oldest=1_001), found)
    assert after != before
    second.rows["of"][5] += 1
    rows["weight"][:] = rows["weight"][:, ::-1]
    assert looked((rows, slots, ids), 5, second._replace(now=1_102, oldest=1_001), found) == before
