"""The lists that anchors and tuning are judged by: predictions after a cut, filled as a server fills them."""

import numpy as np
import pytest

from batch.training.als import fold_in, largest
from batch.training.comparison import why_worse
from batch.training.interactions import Interactions
from batch.training.served_lists import Factors, HeldOut, K
from flows.fold.settings import LaneSettings

HOUR_MS = 3_600_000


def interactions(*events):
    """Events (user, item, ts_ms) of weight 1; items 0 to 29 are there, the id of item k is 100 + k."""
    user, item, ts_ms = (np.array(column) for column in zip(*events, strict=True))
    ids = np.arange(100, 130, dtype=np.uint64)
    users = np.arange(user.max() + 1, dtype=np.uint64)
    return Interactions(user, item, np.ones(len(user), np.float32), ts_ms, users, ids, [str(i) for i in ids], {})


def test_a_folded_vector_is_the_solution_of_its_definition():
    rng = np.random.default_rng(1)
    whitened, confidence = rng.normal(size=(5, 8)).astype(np.float32), rng.uniform(1.5, 6, 5)
    w = whitened.astype(float)
    system = np.eye(8) + (w.T * (confidence - 1)) @ w
    assert fold_in(whitened, confidence) == pytest.approx(np.linalg.solve(system, w.T @ confidence))


def test_the_largest_scores_come_first_and_equal_ones_by_place():
    assert largest(np.array([1.0, 3, 2, 3, 0]), 3).tolist() == [1, 3, 2]
    assert largest(np.array([1.0, 1, 1]), 2).tolist() == [0, 1]
    assert largest(np.array([2.0, 5]), 9).tolist() == [1, 0]


def test_predictions_go_on_within_a_visit_after_the_cut_to_items_known_before_it():
    known = [(0, item, 0) for item in range(5)]
    visits = HeldOut(interactions(
        *known,
        (1, 0, 10), (1, 1, 1001),  # goes on across the cut
        (1, 2, 1001 + HOUR_MS),  # a new visit
        (1, 3, 1002 + HOUR_MS), (1, 9, 1003 + HOUR_MS),  # goes on; to an item that nobody knew
        (2, 4, 2000), (2, 0, 2001),
    ), 1000, LaneSettings())  # fmt: skip
    assert visits.target.tolist() == [101, 103, 100]
    assert visits.past.sum() == 6


def test_a_list_holds_the_scorers_items_then_the_nearest_then_popular_ones():
    events = [(0, item, 0) for item in (7, 7, 7, 8, 8, 9)] + [(1, 0, 1), (1, 1, 2)]
    visits = HeldOut(interactions(*events, (1, 7, 3)), 2, LaneSettings())
    whitened = np.zeros((30, 2), np.float32)
    whitened[0] = whitened[1] = whitened[20] = [1, 0]
    whitened[21] = [0.5, 0]
    near = visits.near(Factors(whitened, 2.0))
    assert near[0, :5].tolist() == [0, 1, 20, 21, -1]
    scored = np.full((1, K), -1)
    scored[0, :2] = [20, 3]
    assert visits.hybrid(scored, near)[0, :9].tolist() == [120, 103, 100, 101, 121, 107, 108, 109, 0]
    assert visits.collaborative(near)[0, :6].tolist() == [100, 101, 120, 121, 107, 108]
    assert visits.popular()[0, :6].tolist() == [107, 108, 100, 101, 109, 0]  # no item that nobody has had


@pytest.mark.parametrize(
    ("gain", "half", "predictions", "is_worse"),
    [
        (-0.030, 0.02, 2000, True), (-0.030, 0.04, 2000, False), (-0.009, 0.001, 2000, False),
        (-0.011, 0.001, 2000, True), (0.2, 0.001, 2000, False), (-0.5, 0.0, 49, False), (-0.5, 0.0, 50, True),
    ],
)  # fmt: skip
def test_an_anchor_is_worse_by_more_than_the_tolerance_and_chance(gain, half, predictions, is_worse):
    live = {"version": "a1", "strategies": {"hybrid": {"HR@20": 0.5}}}
    found = {"predictions": predictions, "live": live, "difference": {"hybrid": (gain, half)}}
    worse = why_worse(found, 0.02)
    assert (worse is not None) == is_worse
    assert worse is None or f"`hybrid` has HR@20 {0.5 + gain:.4f}, with the live anchor a1 0.5000" in worse
