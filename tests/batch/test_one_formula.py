"""Training and serving cannot drift apart: the fit's and the trees' features and probabilities are the server's own."""

import numpy as np
import pytest

from batch.training.mixture_fit import probabilities
from batch.training.mixture_table import features_of, mixture_table
from batch.training.ranker import tree_inputs
from batch.training.simulated_shop import Pairs, View
from serving.scoring.expansion_cache import new_expansion_cache
from serving.scoring.features import (
    N_COLUMNS,
    FeatureSource,
    log_factors,
    new_features,
    new_scratch,
    repeat_inputs,
    shop_totals,
    write_features,
)
from serving.scoring.item_features import ItemTable
from serving.scoring.mixture import ALLOW, first_pair, new_terms, rank_bucket, score
from serving.scoring.parameters import DEFAULT, DEFAULT_CONFIG
from serving.scoring.scorer import Scorer
from serving.scoring.sessions import padded_sessions
from serving.scoring.tree_features import FIRST_REPEAT, N_PAIRS, TOP
from state.rows import lane_rows
from state.rows.item_rows import MAX_NEIGHBOURS, empty_items
from state.rows.session import MAX_DISTINCT
from state.rows.slot_map import SlotMap

N, N_WITH_ROWS, D, NOW = 300, 250, 16, 1_700_000_000_000
HALF_LIVES = (DEFAULT_CONFIG.short_half_life_ms, DEFAULT_CONFIG.long_half_life_ms)


def random_view(rng):
    """Rows of items, some without one, as a long past could have left them."""
    rows, slots, ids = empty_items(N), SlotMap(N), rng.integers(1, 2**63, N).astype(np.uint64)
    for slot in slots.assign(ids[:N_WITH_ROWS]).tolist():
        n = int(rng.integers(0, MAX_NEIGHBOURS + 1))
        rows["n"][slot], rows["neighbour"][slot, :n] = n, np.sort(rng.choice(ids, n, replace=False))
        rows["weight"][slot, :, :n] = rng.integers(0, 500, (3, n))
        rows["total"][slot] = 2 * rows["weight"][slot].sum(axis=1)
        rows["support"][slot], rows["count"][slot] = rng.integers(0, 20_000), rng.integers(0, 100_000)
        rows["repeat"][slot] = rng.integers(0, 300, 4) + np.array([0, 300, 0, 300])
        rows["pop_epoch"][slot] = [NOW // (16 * one) - rng.integers(0, 3) for one in HALF_LIVES]
        rows["pop"][slot] = rng.integers(0, 1 << 36, (2, 2))
    totals = np.zeros(lane_rows.SIZE, np.int64)
    totals[: lane_rows.SESSIONS] = rng.integers(0, 1000, lane_rows.SESSIONS)
    totals[[lane_rows.SESSIONS, lane_rows.COUNT]] = 30_000, rows["count"].sum()
    for h, half_life in enumerate(HALF_LIVES):
        totals[lane_rows.POP + 3 * h : lane_rows.POP + 3 * h + 3] = NOW // (16 * half_life), 1 << 44, 1 << 40
    embedding = rng.normal(size=(N, D)).astype(np.float32)
    return View(rows, slots, totals, NOW), embedding / np.linalg.norm(embedding, axis=1, keepdims=True), ids


def random_parameters(rng):
    return DEFAULT._replace(
        pairs=DEFAULT.pairs * rng.uniform(0.3, 3, (6, 3)), second=DEFAULT.second * rng.uniform(0.3, 3, 2),
        popularity=DEFAULT.popularity * rng.uniform(0.3, 3, 2), theta=DEFAULT.theta * rng.uniform(-1, 2, 10),
        power=float(rng.uniform(0.7, 1.3)), repeat=DEFAULT.repeat * rng.uniform(0, 2, (2, 11)),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2])
def shop(request):
    rng = np.random.default_rng(request.param)
    view, embedding, ids = random_view(rng)
    pools = [rng.choice(ids, int(rng.integers(1, 30)), replace=False) for _ in range(120)]
    history = [rng.choice(pool, int(rng.integers(1, 50))) for pool in pools]
    pairs = Pairs(history, rng.choice(ids, len(history)))
    return view, embedding, pairs, mixture_table(view, embedding, pairs), random_parameters(rng)


def test_the_fit_sees_the_features_that_the_server_scores_bit_for_bit(shop):
    view, embedding, pairs, table, _ = shop
    items = ItemTable(view.rows, view.slots.table, view.slots.slot_at, embedding)
    totals = shop_totals(view.totals, DEFAULT_CONFIG, view.now_ms)
    source = FeatureSource(items, totals, new_expansion_cache(N), DEFAULT_CONFIG.n_candidates)
    scratch = new_scratch(DEFAULT_CONFIG.n_candidates, D)
    features = new_features(DEFAULT_CONFIG.n_candidates + MAX_DISTINCT + 1)  # used again and again, as a server does
    sessions, n_pairs = padded_sessions(pairs.history), 0
    for b in range(len(pairs.history)):
        n, m = write_features(sessions.item[b], sessions.n[b], source, scratch, features)
        ours = features_of(table, b)
        assert (n, m) == (table.n[b], table.m[b])
        assert np.array_equal(scratch.candidates.item[:n], table.item[b, :n])
        # The last two columns are of the session's own items alone.
        assert np.array_equal(features.column[: N_COLUMNS - 2, :n], ours.column[: N_COLUMNS - 2, :n])
        assert np.array_equal(features.column[:, :m], ours.column[:, :m])
        assert np.array_equal(features.session, ours.session)
        assert np.array_equal(features.pair_end[:m], ours.pair_end[:m])
        end = int(features.pair_end[m - 1])
        for name in ("pair_candidate", "adj", "far", "bwd"):
            assert np.array_equal(getattr(features, name)[:end], getattr(ours, name)), name
        n_pairs += end
    assert n_pairs == len(table.adj) > 10_000


@pytest.mark.parametrize("of", ["default", "random"])
def test_the_fit_gives_the_servers_probabilities_bit_for_bit(shop, of):
    view, embedding, pairs, table, other = shop
    params = DEFAULT if of == "default" else other
    p = probabilities(params, table)
    scored = Scorer(params).score(
        padded_sessions(pairs.history), view.rows, view.slots, view.totals, view.now_ms, embedding=embedding
    )
    for b in range(len(pairs.history)):
        n, k = int(table.n[b]), int(scored.n[b])
        ours = {i: q for i, q in zip(table.item[b, :n].tolist(), p[b, :n].tolist(), strict=True) if q > 0}
        assert ours == dict(zip(scored.item[b, :k].tolist(), scored.probability[b, :k].tolist(), strict=True))


def test_the_formula_is_that_of_the_documentation(shop):
    """`score` against the equations of its docstring, in plain numpy on the features."""
    table, p = shop[3:]
    terms = new_terms(table.item.shape[1])
    for b in range(len(table.n)):
        n, m, features = int(table.n[b]), int(table.m[b]), features_of(table, b)
        score(features, n, m, p, ALLOW, terms)
        share = 1e-5 + np.concatenate((p.second, p.popularity)) @ features.column[:4, :n]
        for r in range(m):
            at = slice(first_pair(features, r), int(features.pair_end[r]))
            gains = p.pairs[rank_bucket(r)] @ np.stack((features.adj[at], features.far[at], features.bwd[at]))
            chosen = features.pair_candidate[at] < n
            np.add.at(share, features.pair_candidate[at][chosen], gains[chosen])
        ln_novel = p.power * np.log(share) + [p.theta @ log_factors(features, i) for i in range(n)]
        ln_novel[:m] += p.session_bias[np.minimum(np.arange(m), 1)]
        novel, odds = np.exp(ln_novel - ln_novel.max()), np.zeros(n)
        odds[:m] = np.exp([p.repeat[min(i, 1)] @ repeat_inputs(features, i) for i in range(m)])
        expected = (novel / novel.sum() + odds) / (1 + odds.sum())
        assert terms.probability[:n] == pytest.approx(expected, rel=1e-9)
        assert terms.probability[:n].sum() == pytest.approx(1)


def test_trees_are_trained_on_the_candidates_that_the_server_finds_likeliest(shop):
    view, embedding, pairs, table, params = shop
    x, order, best = tree_inputs(params, table)
    scored = Scorer(params).score(
        padded_sessions(pairs.history), view.rows, view.slots, view.totals, view.now_ms, embedding=embedding
    )
    for b in range(len(table.n)):
        k, m = min(int(table.n[b]), TOP), int(table.m[b])
        assert np.array_equal(table.item[b, order[b, :k]], scored.item[b, :k])
        assert np.array_equal(best[b, :k], scored.probability[b, :k])
        factors = [log_factors(features_of(table, b), i) for i in order[b, :k]]
        assert np.array_equal(x[b, :k, N_PAIRS + 4 : FIRST_REPEAT], np.array(factors, np.float32))
        repeats = [repeat_inputs(features_of(table, b), i) if i < m else np.zeros(11) for i in order[b, :k]]
        assert np.array_equal(x[b, :k, FIRST_REPEAT : FIRST_REPEAT + 11], np.array(repeats, np.float32))
