"""`headrace tune`: searches the anchor's settings on the shop's own past.

Temporal cross-validation: models of the first 80 and 90 % of the events are judged by what
they find of the next 10 % (recall@20 of items new to the user). A trial that is worse than
the median after the first fold ends there. The study rests in SQLite and is gone on with.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import typer
from rich.console import Console
from rich.table import Table

from batch.training.als import HeldOut, fit, hold_out, recall, whiten
from batch.training.interactions import Interactions, read_interactions
from batch.training.log_events import Reader
from flows.log.contract import LogUnavailable, PositionLost
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.settings import lane_settings, limits_of
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.registry import RegistryUnavailable
from state.id_key import use_id_key
from state.settings import PREFIX

FOLDS = ((0.8, 0.9), (0.9, 1.0))
STUDY = "anchor"
LEAST_USERS = 10


def folds_of(data: Interactions) -> list[HeldOut]:
    """Return the folds with enough users to judge by."""
    found = []
    for train_share, upto in FOLDS:
        end = int(np.quantile(data.ts_ms, upto))
        known = data.ts_ms <= end
        part = Interactions(
            data.user[known], data.item[known], data.weight[known], data.ts_ms[known], data.user_hash, data.item_hash,
            data.item_ids, data.positions,
        )  # fmt: skip
        split = hold_out(part, int(np.quantile(data.ts_ms, train_share)))
        if len(split.users) >= LEAST_USERS:
            found.append(split)
    return found


def objective_of(folds: list[HeldOut], threads: int) -> Any:
    """Return the function a study calls: settings in, mean recall@20 out."""

    def objective(trial: optuna.Trial) -> float:
        factors = trial.suggest_categorical("factors", [32, 64, 128])
        regularization = trial.suggest_float("als_regularization", 1e-3, 50.0, log=True)
        alpha = trial.suggest_float("als_alpha", 0.1, 50.0, log=True)
        iterations = trial.suggest_int("als_iterations", 5, 20, step=5)
        values = []
        for number, split in enumerate(folds):
            most = min(factors, len(split.train.indptr) - 1, split.train.shape[1])
            whitened, _ = whiten(fit(split.train, most, regularization, alpha, iterations, threads), regularization)
            values.append(recall(split, whitened, alpha)["recall@20"] or 0.0)
            trial.report(float(np.mean(values)), number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(values))

    return objective


def run(settings: Settings, trials: int, html: Path | None, json: bool) -> int:
    """Try settings, print the best; return the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    use_id_key(settings)
    try:
        log = open_log(settings.log_address, config=settings.kafka_config)
        weights = lane_settings(settings).fold_params().weights
        with err.status("reading the log"):
            reader = Reader(
                open_registry(settings), time.time_ns() // 1_000_000, limits_of(settings), settings.connect_timeout_s
            )
            data = read_interactions(log, reader, weights)
        log.close()
    except (LogUnavailable, RegistryUnavailable) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    except PositionLost as error:
        err.print(str(error), markup=False)
        return FAILED
    folds = folds_of(data) if len(data.ts_ms) else []
    if not folds:
        err.print(f"the log holds {len(data.ts_ms)} interactions; too few users act in two parts of their time")
        return FAILED
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=STUDY, storage=f"sqlite:///{settings.data_dir / 'tune.db'}", load_if_exists=True,
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=42),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )  # fmt: skip
    if not study.trials:
        names = ("factors", "als_regularization", "als_alpha", "als_iterations")
        study.enqueue_trial({name: getattr(settings, name) for name in names})
    done = len(study.trials)
    with progress_bar("trials") as bar:
        task = bar.add_task("tuning", total=done + trials, completed=done, rate=0.0)
        study.optimize(
            objective_of(folds, settings.als_threads), trials, callbacks=[lambda *_: bar.advance(task)]
        )  # fmt: skip
    if html is not None:
        _write_plots(study, html)
    best = {f"{PREFIX}{name.upper()}": value for name, value in study.best_params.items()}
    finished = [trial for trial in study.trials if trial.value is not None]
    found = {
        "recall@20": study.best_value, "first": finished[0].value, "settings": best, "trials": len(study.trials),
        "pruned": sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials), "folds": len(folds),
    }  # fmt: skip
    if json:
        print_json(found)
    else:
        table = Table("setting", "value", title=f"best of {len(study.trials)} trials: recall@20 {study.best_value:.4f}")
        for name, value in best.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        Console().print(table)
    return OK


def _write_plots(study: optuna.Study, path: Path) -> None:
    from optuna import visualization as show

    figures = [show.plot_optimization_history(study), show.plot_parallel_coordinate(study), show.plot_slice(study)]
    parts = [figure.to_html(full_html=False, include_plotlyjs=n == 0) for n, figure in enumerate(figures)]
    path.write_text("<!doctype html><meta charset=utf-8><title>headrace tune</title>" + "".join(parts))
    err.print(f"plots: {path}")


def command(
    trials: Annotated[int, typer.Option(help="Trials to add to the study.")] = 20,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    json: Json = False,
) -> None:
    """Search the anchor's settings on the log's own past. The study is kept, and gone on with."""
    raise typer.Exit(run(read_settings(), trials, html, json))
