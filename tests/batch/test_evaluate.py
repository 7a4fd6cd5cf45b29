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
from flows.log.contract import Message
from flows.log.sqlite_log import SqliteLog
from headrace.cli.evaluate import run
from headrace.cli.evaluate_input import Input
from headrace.loading.plan import Choices
from headrace.settings import Settings
from schemas.ids import hash_id
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from serving.scoring.parameters import DEFAULT

REGISTRY = FolderRegistry()
ONE_EVENT, NO_EVENTS = Path("one.csv"), Path("none.csv")
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
    assert "headrace finds the target in" in page
    assert "https://" not in page.split("</script>")[-1]
    wrong = evaluate_by_command(tmp_path, "--train", "events.parquet", "--pairs", "events.parquet")
    assert wrong.returncode == 2
    assert "no column 'history'" in wrong.stderr
    unknown = evaluate_by_command(tmp_path, "--events", "events.parquet", "--set", "thetta.1=2")
    assert unknown.returncode == 2
    assert "thetta" in unknown.stderr


@pytest.fixture
def shop_folder(tmp_path):
    """A data folder whose log holds walks over a ring of items, and a product."""
    log, events = SqliteLog(tmp_path / "log.sqlite"), walk(300, 1)
    events["ts_ms"] += 1_700_000_000_000
    record = {"ts_ms": int(events["ts_ms"][0]), "item": "i1", "title": "One", "category": "toys/outdoor"}
    messages = [Message("products", b"i1", encode("products", record, REGISTRY), record["ts_ms"])]
    for n, row in enumerate(events):
        view = {"event_id": f"e{n}", "ts_ms": int(row["ts_ms"]), "user": f"u{row['user']}", "item": f"i{row['item']}"}
        messages.append(Message("product-views", b"", encode("product-views", view, REGISTRY), view["ts_ms"]))
    log.append([*messages, messages[-1]])  # the broker delivered one twice
    log.close()
    return tmp_path, len(events)


@pytest.mark.process
def test_the_log_of_the_running_shop_is_evaluated(shop_folder, capsys):
    folder, n_events = shop_folder
    live = Input(live=Settings(data_dir=folder))
    assert run(live, Options(fit=False, baselines=("popular",)), None, json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["train_events"] < n_events
    assert found["HR@20"] > found["baselines"]["popular"]["HR@20"]
    assert found["by_category"]["toys"]["n"] > 0
    assert found["run"]["source"].endswith("log.sqlite")
    assert found["run"]["split"] == 0.8
    assert found["run"]["commit"]
    assert run(live, Options(fit=False, baselines=("popular",)), None, json=False) == 0
    printed = capsys.readouterr().out
    assert "better than the best baseline, popular" in printed
    assert "HR: share of the predictions" in printed
    assert "split 0.8, next item, fit False" in printed


@pytest.mark.parametrize(
    ("given", "what_is_wrong"),
    [
        ({"events": ONE_EVENT}, "nothing is left to predict"), ({}, "give --live, or --events FILE"),
        ({"events": ONE_EVENT, "train": ONE_EVENT}, "give --live, or --events FILE"),
        ({"train": ONE_EVENT}, "--train and --pairs need each other"),
        ({"events": NO_EVENTS}, "holds no events"),
        ({"live": Settings(data_dir="nothing-here")}, "there is no log at nothing-here/log.sqlite"),
        ({"live": Settings(), "mapped": Choices(kind="view")}, "say how to read the file of --events"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_one_line_and_wrong_usage(tmp_path, monkeypatch, capsys, given, what_is_wrong):
    monkeypatch.chdir(tmp_path)
    for name, text in ((ONE_EVENT, "user,item,ts_ms\nu1,a,1700000000000\n"), (NO_EVENTS, "user,item,ts_ms\n")):
        name.write_text(text)
    assert run(Input(**given), Options(), None, json=False) == 2
    *_, line = capsys.readouterr().err.splitlines()  # behind the bar of the log that was read
    assert what_is_wrong in line


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
