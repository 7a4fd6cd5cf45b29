import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.sessions import GAP_MS, walk

from batch.evaluation.evaluate import Options, evaluate
from batch.training.embedding import embed
from batch.training.mixture_fit import SIZE, fit_mixture, loss_and_gradient, pack, unpack
from batch.training.mixture_table import mixture_table
from batch.training.simulated_shop import Pairs, SimulatedState, columns_of, pairs_of, sessions_by_end
from flows.fold.settings import LaneSettings
from schemas.ids import hash_id
from serving.scoring.parameters import DEFAULT

SHARED = Path(__file__).parents[3] / "shared" / "data" / "rsc15_100k.parquet"


@pytest.fixture(scope="module")
def shop():
    events = walk(1500, 1)
    shop = SimulatedState(2000, 100)
    shop.learn(events)
    return events, shop.view()


def test_the_gradient_is_that_of_the_loss(shop):
    events, view = shop
    session = sessions_by_end(events["user"], events["ts_ms"], GAP_MS)
    table = mixture_table(view, embed(view.rows, view.slots, 8), pairs_of(session, events["item"], 60))
    x = pack(DEFAULT)
    _, grad = loss_and_gradient(x, [table])
    for k in range(SIZE):
        step = np.zeros(SIZE)
        step[k] = 1e-5
        (above, _), (below, _) = loss_and_gradient(x + step, [table]), loss_and_gradient(x - step, [table])
        assert grad[k] == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-4)
    assert np.array_equal(pack(unpack(x)), x)


def test_the_fit_raises_the_likelihood_and_needs_enough_predictions(shop):
    events, view = shop
    session = sessions_by_end(events["user"], events["ts_ms"], GAP_MS)
    table = mixture_table(view, embed(view.rows, view.slots, 8), pairs_of(session, events["item"], 2000))
    fit = fit_mixture([table], None)
    assert fit.kept
    assert fit.after > fit.before
    few = table._replace(target=np.full(len(table.n), -1))
    assert not fit_mixture([few], None).kept
    switched_off = fit_mixture([table], None, DEFAULT._replace(second=np.zeros(2)))
    assert switched_off.kept
    assert switched_off.params.second == pytest.approx([0, 0], abs=1e-6)


def test_a_ring_of_items_is_learned_and_beats_the_baselines():
    found = evaluate(walk(1500, 1), walk_pairs(2), Options(ranker="off"))
    assert found["HR@20"] > found["baselines"]["popular"]["HR@20"]
    assert found["MRR@20"] > found["baselines"]["session_knn"]["MRR@20"]
    assert found["MRR@20"] > 0.6
    assert found["interval"]["HR@20"][0] <= found["HR@20"] <= found["interval"]["HR@20"][1]
    assert found["new_only.n"] < found["n"]


def walk_pairs(seed, shift=0):
    later = walk(100, seed)
    item = (later["item"] - 1 + shift) % 40 + 1
    return pairs_of(sessions_by_end(later["user"], later["ts_ms"], GAP_MS), item.astype(np.uint64))


def test_nothing_of_the_future_reaches_a_prediction():
    """The guard: targets drawn by chance, after a training part that knows nothing of them, cannot be guessed."""
    rng = np.random.default_rng(9)
    n_items = 400
    train = columns_of(
        np.repeat(np.arange(1, 1001, dtype=np.uint64), 4), rng.integers(1, n_items + 1, 4000).astype(np.uint64),
        np.arange(4000) * 1000,
    )  # fmt: skip
    history = [rng.integers(1, n_items + 1, 3).astype(np.uint64) for _ in range(1500)]
    pairs = Pairs(history, rng.integers(1, n_items + 1, 1500).astype(np.uint64))
    chance = 20 / n_items
    for mode in ("frozen", "prequential"):
        found = evaluate(train, pairs, Options(mode=mode, fit=False, baselines=()))
        assert abs(found["HR@20"] - chance) < 4 * np.sqrt(chance / 1500)


def test_prequential_learns_what_frozen_cannot_know():
    frozen, live = (
        evaluate(walk(30, 1), walk_pairs(5), Options(mode=mode, fit=False, baselines=()))
        for mode in ("frozen", "prequential")
    )
    assert live["MRR@20"] > frozen["MRR@20"]


def evaluate_by_command(tmp_path, *arguments):
    command = [sys.executable, "-m", "headrace", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)


@pytest.mark.process
def test_the_command_reads_tables_and_writes_json_and_a_page(tmp_path):
    events = walk(600, 1)
    table = pl.DataFrame({
        "user": events["user"], "item": events["item"], "ts_ms": events["ts_ms"], "kind": ["click"] * len(events),
        "category": [f"c{item % 2}/sub" for item in events["item"].tolist()],
    })  # fmt: skip
    table.write_parquet(tmp_path / "events.parquet")
    done = evaluate_by_command(
        tmp_path, "--events", "events.parquet", "--html", "page.html", "--json", "--ranker", "off"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n"] > 100
    assert found["HR@20"] > 0.5
    assert set(found["by_category"]) == {"c0", "c1"}
    assert found["miscalibration@20"] > 0
    assert sum(row["n"] for row in found["reliability"]) > found["n"]
    assert found["calibration_error"] < 0.05
    assert found["baselines"]["als"]["HR@20"] is not None
    page = (tmp_path / "page.html").read_text()
    assert "new_only.HR@20" in page
    assert "Reliability" in page
    assert "https://" not in page.split("</script>")[-1]
    wrong = evaluate_by_command(tmp_path, "--train", "events.parquet", "--pairs", "events.parquet")
    assert wrong.returncode == 2
    assert "no column 'history'" in wrong.stderr
    unknown = evaluate_by_command(tmp_path, "--events", "events.parquet", "--set", "thetta.1=2")
    assert unknown.returncode == 2
    assert "thetta" in unknown.stderr


@pytest.mark.skipif(not SHARED.exists(), reason="rsc15_100k.parquet is not beside the project")
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_protocol_t1_is_reached_by_the_default_and_its_nightly_fit():
    table = pl.read_parquet(SHARED)

    def hashes(column):
        return np.array([hash_id(str(value)) for value in column], np.uint64)

    train = table.filter(pl.col("split") == "train").sort("ts")
    test = table.filter(pl.col("split") == "test").sort("user", "ts")
    events = columns_of(hashes(train["user"]), hashes(train["item"]), train["ts"].dt.epoch("ms").to_numpy())
    history, target = [], []
    for _, clicks in test.group_by("user", maintain_order=True):
        items = hashes(clicks["item"])
        history += [items[:k] for k in range(1, len(items))]
        target += items[1:].tolist()
    options = Options(ranker="off", baselines=(), settings=LaneSettings())
    found = evaluate(events, Pairs(history, np.array(target, np.uint64)), options)
    assert found["n"] == 10_152
    assert found["HR@20"] >= 0.720
    assert found["MRR@20"] >= 0.395
