import lightgbm as lgb
import numpy as np
import pytest
from helpers.sessions import GAP_MS, walk

from batch.training.embedding import embed
from batch.training.mixture_table import mixture_table
from batch.training.nightly import fit_night
from batch.training.ranker import PARAMS, TREES, forest_of, ranked_items, train_ranker
from batch.training.simulated_shop import SimulatedState, pairs_of, sessions_by_end
from batch.training.train_anchor import train_anchor
from flows.fold.settings import LaneSettings
from flows.log.contract import Message
from flows.log.sqlite_log import SqliteLog
from headrace.settings import Settings
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from serving.engine.recommender import Recommender
from serving.retrieval.vector_index import VectorIndex
from serving.scoring.parameters import DEFAULT
from serving.scoring.scorer import ALLOW, DEMOTE, EXCLUDE, Scorer
from serving.scoring.sessions import padded_sessions
from serving.scoring.tree_ensemble import N_FEATURES, TOP, forest_from, leaf_place, scores_of
from state.anchor import load_anchor
from state.store.contract import MemoryStore

NOW = 1_700_000_000_000
REGISTRY = FolderRegistry()


def trees_of(x, y, **other):
    return lgb.train({**PARAMS, **other}, lgb.Dataset(x, y, group=np.full(len(x) // TOP, TOP)), 30)


@pytest.mark.parametrize(("least", "leaves"), [(1, 16), (1, 15), (100, 15), (2_000, 15)])
def test_a_forest_gives_the_librarys_scores_whatever_the_trees_look_like(least, leaves):
    rng = np.random.default_rng(leaves + least)
    # Few different values, so that features often equal a threshold; some next to each other, with none between them.
    values = rng.normal(size=40).astype(np.float32)
    values = np.concatenate((values, np.nextafter(values, np.float32(9))))
    x = rng.choice(values, (100 * TOP, N_FEATURES))
    upper = np.isin(x[:, 0], values[40:])
    y = (x[:, 0] + upper + x[:, 7] * x[:, 20] > 0.5).astype(int)
    booster = trees_of(x, y, min_data_in_leaf=least, num_leaves=leaves, objective="binary")
    forest, out = forest_of(booster), np.zeros(TOP)
    expected = booster.predict(x, raw_score=True).reshape(-1, TOP)
    for b in range(100):
        scores_of(np.ascontiguousarray(x[b * TOP : (b + 1) * TOP].T), TOP, forest, out)
        assert out == pytest.approx(expected[b], abs=1e-12)


def test_each_leaf_has_its_own_place():
    assert sorted(leaf_place(leaf) for leaf in range(16)) == list(range(16))


@pytest.fixture(scope="module")
def night():
    events = walk(3_000, 5, n_items=120)
    shop = SimulatedState(4_000, 200)
    shop.learn(events)
    view = shop.view()
    embedding = embed(view.rows, view.slots, 8)
    pairs = pairs_of(sessions_by_end(events["user"], events["ts_ms"], GAP_MS), events["item"], 4_000)
    table = mixture_table(view, embedding, pairs)
    return view, embedding, pairs, table, train_ranker(DEFAULT, [table])


def scored_by(scorer, night, mode, by_trees=True):
    view, embedding, pairs, _, _ = night
    sessions = padded_sessions(pairs.history)
    return scorer.score(sessions, view.rows, view.slots, view.totals, view.now_ms, mode, embedding, by_trees)


def test_the_scorer_orders_as_the_library_does_with_the_tables_features(night):
    table, booster = night[3:]
    expected = ranked_items(booster, DEFAULT, table, 20)
    scored = scored_by(Scorer(forest=forest_of(booster)), night, ALLOW)
    assert np.array_equal(scored.item[:, :20], expected)
    assert (expected != ranked_items(None, DEFAULT, table, 20)).any(axis=1).mean() > 0.5  # and the order is another


def test_places_are_as_likely_as_the_mixture_says_and_without_trees_nothing_changes(night):
    plain, ordered = Scorer(), Scorer(forest=forest_of(night[4]))
    likeliest, scored = scored_by(plain, night, ALLOW), scored_by(ordered, night, ALLOW)
    assert np.array_equal(scored.probability, likeliest.probability)
    assert np.array_equal(np.sort(scored.item, axis=1), np.sort(likeliest.item, axis=1))
    assert np.array_equal(scored.item[:, TOP:], likeliest.item[:, TOP:])
    off = scored_by(ordered, night, ALLOW, by_trees=False)
    for column, other in zip(off, likeliest, strict=True):
        assert np.array_equal(column, other)
    for column, other in zip(scored_by(ordered, night, DEMOTE), scored_by(plain, night, DEMOTE), strict=True):
        assert np.array_equal(column, other)


def test_what_must_not_repeat_is_left_out_of_the_trees_order(night):
    pairs, scorer = night[2], Scorer(forest=forest_of(night[4]))
    scored, everything = scored_by(scorer, night, EXCLUDE), scored_by(scorer, night, ALLOW)
    plain = scored_by(Scorer(), night, EXCLUDE)
    for b, history in enumerate(pairs.history):
        n = int(scored.n[b])
        others = [item for item in everything.item[b, : everything.n[b]].tolist() if item not in set(history.tolist())]
        assert scored.item[b, :n].tolist() == others[:n]
        assert n == plain.n[b]
        assert scored.probability[b, :n] == pytest.approx(plain.probability[b, :n], rel=1e-9)


def views_log(path, n_sessions=1_500, n_items=60):
    """Sessions in which small items lead elsewhere than large ones and often back: no sum of shares says that."""
    rng, log = np.random.default_rng(1), SqliteLog(path)
    for s in range(n_sessions):
        at, before, messages = int(rng.integers(n_items)), 0, []
        for k in range(7):
            ts_ms = NOW + s * 10_000 + k * 1000
            record = {"event_id": f"e{s}-{k}", "ts_ms": ts_ms, "user": f"u{s}", "item": f"i{at}"}
            messages.append(Message("product-views", b"", encode("product-views", record, REGISTRY), ts_ms))
            step = 2 if at < n_items // 2 else 1
            following = (at + step) % n_items if rng.random() < 0.55 else int(rng.integers(n_items) * rng.random())
            back = k > 0 and at < n_items // 2 and rng.random() < 0.5
            at, before = before if back else following, at
        log.append(messages)
    return log


def test_trees_that_win_are_published_with_the_anchor_and_order_the_servers_answers(tmp_path):
    settings = Settings(data_dir=tmp_path, factors=4, als_iterations=3, als_threads=1, server_cached_items=1000)
    log = views_log(tmp_path / "log.sqlite")
    summary = train_anchor(settings, log, NOW + 86_400_000)
    log.close()
    metrics = summary["metrics"]
    assert metrics["trees"] == TREES
    assert metrics["trees_gain_mrr"] > metrics["trees_gain_mrr_error"] > 0
    folder = settings.anchors_dir / summary["version"]
    ordered, off = (
        Recommender(MemoryStore(), settings.model_copy(update={"ranker": ranker}), "g1").shop
        for ranker in ("auto", "off")
    )
    for shop in (ordered, off):
        shop.set_index(VectorIndex.load(folder))
    assert len(off.scorer.forest.value) == 0
    forest = ordered.scorer.forest
    trees = load_anchor(folder).trees
    saved = forest_from(trees)
    for column, other in zip(forest, saved, strict=True):
        assert column.dtype == other.dtype
        assert np.array_equal(column, other)
    assert len(forest.value) == TREES
    assert len(forest_from({**trees, "version": 0}).value) == 0  # learned from other features


def test_too_little_to_learn_from_gives_no_trees():
    start = DEFAULT._replace(power=0.5)
    night = fit_night(walk(300, 1), LaneSettings(), start=start)
    assert (len(night.forest.value), night.gain) == (0, None)
    assert night.fit.params is start
