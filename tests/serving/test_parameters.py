import numpy as np
import pytest
from helpers.fold_oracle import EPOCH_MS, Event, batch_of
from helpers.score_oracle import Oracle
from hypothesis import given
from hypothesis import strategies as st

from flows.fold.lane import Lane
from flows.fold.settings import LaneSettings
from schemas.ids import hash_id
from serving.scoring.scorer import REPEAT_MODES, Scorer
from serving.scoring.sessions import padded_sessions
from state.store.contract import MemoryStore

SCORER = Scorer()
ITEMS = "abcdefgh"


def folded(choices):
    """A lane's tables after visitors looked at the chosen items, a minute apart, five to a visitor."""
    events = [Event(f"u{n // 5}", item, EPOCH_MS + n * 60_000) for n, item in enumerate(choices)]
    lane = Lane(LaneSettings(max_cached_users=200, max_cached_items=50, dedupe_window=2048), MemoryStore(), "g1")
    lane.open()
    lane.apply(*batch_of(events + [Event("all", item, EPOCH_MS + 10**9 * k) for k, item in enumerate(ITEMS)]))
    return lane


@given(
    st.lists(st.sampled_from(ITEMS), min_size=1, max_size=60),
    st.lists(st.sampled_from(ITEMS), min_size=1, max_size=12),
    st.sampled_from(list(REPEAT_MODES)),
)
def test_the_kernel_gives_the_probabilities_of_the_formula(choices, session, repeat):
    lane = folded(choices)
    slots, rows, totals, now = lane._items._slots, lane._items.rows, lane._totals, EPOCH_MS + 10**10
    hashes = [hash_id(item) for item in session]
    slot_of = {hash_id(i): int(slots.find(np.array([hash_id(i)], np.uint64))[0]) for i in ITEMS}
    expected = {j: p for j, p in Oracle(rows, slot_of, totals, now).score(hashes, repeat).items() if p > 0}
    scored = SCORER.score(
        padded_sessions([np.array(hashes, np.uint64)]), rows, slots, totals, now, REPEAT_MODES[repeat]
    )
    n = int(scored.n[0])
    found = dict(zip(scored.item[0, :n].tolist(), scored.probability[0, :n].tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-9)
    assert sum(found.values()) == pytest.approx(1 if found else 0)
    order = [(-p, j) for j, p in found.items()]
    assert order == sorted(order)
