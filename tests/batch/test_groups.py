import numpy as np
import polars as pl
import pytest

from batch.evaluation.baselines import Baselines
from batch.evaluation.groups import by_category, by_group, groups_of, miscalibration
from batch.evaluation.reliability import reliability
from batch.evaluation.tables import WrongTable, read_events, read_pairs, split_baskets
from batch.training.simulated_shop import Pairs, columns_of

DAY_MS = 86_400_000


def ids(*items):
    return np.array(items, np.uint64)


def test_each_group_counts_only_its_own_targets():
    train = columns_of(ids(1, 1, 2, 2), ids(1, 2, 3, 4), np.array([0, 1, 2, 3 * DAY_MS]))  # item 4 is new, others old
    pairs = Pairs([ids(1, 2), ids(*range(1, 12))], ids(2, 4), [ids(2, 3), ids(4)])
    ranked = np.array([[3, 9], [4, 9]], np.uint64)
    found = by_group(ranked, groups_of(pairs, train), 2)
    assert found["new_only.n"] == 1  # item 4 is in the second history
    assert found["new_only.recall@2"] == 1.0  # 2 was seen before, 3 is found
    assert (found["cold_users.n"], found["cold_users.recall@2"]) == (1, 0.5)
    assert (found["cold_items.n"], found["cold_items.HR@2"]) == (1, 1.0)


def test_categories_are_told_apart_by_their_department():
    pairs = Pairs([ids(1), ids(1)], ids(2, 3), [ids(2, 3), ids(3)])
    found = by_category(np.array([[2, 0], [9, 3]], np.uint64), pairs, {2: "toys/outdoor", 3: "books"}, 2)
    assert {name: (one["n"], one["recall@2"]) for name, one in found.items()} == {"books": (2, 0.5), "toys": (1, 1.0)}


def test_a_list_like_its_history_is_calibrated_and_a_one_sided_one_is_not():
    categories = {1: "a", 2: "b", 3: "a", 4: "b", 5: "a"}
    histories = [ids(1, 2)]
    assert miscalibration(np.array([[3, 4]], np.uint64), histories, categories) == pytest.approx(0.0)
    by_hand = 0.5 * np.log(0.5 / (0.99 * 1 + 0.005)) + 0.5 * np.log(0.5 / 0.005)
    assert miscalibration(np.array([[3, 5]], np.uint64), histories, categories) == pytest.approx(by_hand)


def test_probabilities_that_are_true_are_reliable_and_boasting_is_found():
    rng = np.random.default_rng(1)
    p = rng.random((4000, 5)) * 0.5
    hits = rng.random(p.shape) < p
    bins, error = reliability(p, hits)
    assert error < 0.01
    assert [row["said"] for row in bins] == sorted(row["said"] for row in bins)
    assert sum(row["n"] for row in bins) == p.size
    assert reliability(np.sqrt(p), hits)[1] > 0.1


def test_the_next_session_after_the_split_is_the_basket():
    day = np.array([0, 0, 1, 9, 9, 12, 3, 9]) * DAY_MS
    events = columns_of(ids(1, 1, 1, 1, 1, 1, 2, 3), ids(11, 12, 11, 12, 99, 11, 12, 11), day)
    train, pairs = split_baskets(events, 0.5, 1_800_000)
    assert train["ts_ms"].max() == 3 * DAY_MS
    # User 2 never comes back, user 3 has no past; item 99 was unknown; day 12 is a later visit.
    assert [h.tolist() for h in pairs.history] == [[11, 12, 11]]
    assert [b.tolist() for b in pairs.targets] == [[12]]


def test_own_items_rank_by_how_often_and_then_how_lately():
    models = Baselines([ids(5, 6, 7, 2), ids(2, 3)])
    assert models.rank("most_had", ids(5, 6, 6, 7), 4) == [6, 7, 5, 2]


def test_factors_find_items_of_the_same_taste():
    rng = np.random.default_rng(2)
    sessions = [rng.choice(np.arange(1, 101) + 100 * (k % 2), 8, replace=False).astype(np.uint64) for k in range(600)]
    best = Baselines(sessions).rank("als", ids(1, 2, 3, 4), 20)
    assert sum(item <= 100 for item in best) >= 18


def test_lists_of_targets_are_read_and_wrong_ones_named(tmp_path):
    path = tmp_path / "pairs.parquet"
    pl.DataFrame({"history": [["a"], ["a", "b"]], "target": [["b", "c"], ["c"]]}).write_parquet(path)
    pairs = read_pairs(path)
    assert [len(one) for one in pairs.targets] == [2, 1]
    assert pairs.target.tolist() == [one[0] for one in pairs.targets]
    pl.DataFrame({"history": [["a"]], "target": [[]]}, schema_overrides={"target": pl.List(pl.String)}).write_parquet(
        path
    )
    with pytest.raises(WrongTable, match="every target"):
        read_pairs(path)
    pl.DataFrame({"history": ["a"], "target": ["b"]}).write_parquet(path)
    with pytest.raises(WrongTable, match="'history' must hold lists"):
        read_pairs(path)


def test_categories_come_with_the_events(tmp_path):
    path = tmp_path / "events.parquet"
    pl.DataFrame({
        "user": [1, 2], "session": [7, 7], "item": ["a", "b"], "ts_ms": [1, 2], "category": ["toys", None],
    }).write_parquet(path)  # fmt: skip
    events, categories = read_events(path)
    assert len(np.unique(events["user"])) == 1
    assert list(categories.values()) == ["toys"]
    assert len(np.unique(read_events(path, by_session=False)[0]["user"])) == 2
