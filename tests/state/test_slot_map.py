import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.rows.slot_map import ABSENT, CacheTooSmall, SlotMap


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), max_size=30))
def test_the_map_finds_exactly_the_ids_that_hold_a_slot(rounds):
    # 16 multiples of the table size collide at one home, so probing and deletion are exercised.
    slots_of = SlotMap(12)
    for batch in rounds:
        slots_of.begin_round()
        batch_ids = ids(*[value * 32 for value in dict.fromkeys(batch)])
        slots = slots_of.assign(batch_ids)
        assert len(set(slots.tolist())) == len(slots)
        assert slots_of.find(batch_ids).tolist() == slots.tolist()
        for value in range(1, 41):
            slot = slots_of.find(ids(value * 32))[0]
            holders = np.flatnonzero(slots_of.id_of == value * 32)
            assert holders.tolist() == ([] if slot == ABSENT else [slot])


def test_slots_of_this_and_the_previous_round_are_kept():
    slots_of = SlotMap(2)
    slots_of.assign(ids(1))
    slots_of.begin_round()
    slots_of.assign(ids(2))
    with pytest.raises(CacheTooSmall):
        slots_of.assign(ids(3))
    slots_of.begin_round()
    assert slots_of.assign(ids(3)).tolist() == [0]
    assert slots_of.find(ids(1, 2)).tolist() == [ABSENT, 1]


def test_making_room_for_one_id_never_takes_the_slot_of_another_of_the_same_call():
    slots_of = SlotMap(3)
    slots_of.assign(ids(1, 2, 3))
    for _ in range(3):
        slots_of.begin_round()
    before = slots_of.find(ids(1, 2))
    assert slots_of.assign(ids(9, 1, 2))[1:].tolist() == before.tolist()
