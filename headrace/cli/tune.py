"""`headrace tune`: searches the anchor's settings on the shop's own past, for the lists that a server shows."""

import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
from rich.console import Console
from rich.table import Table

from batch.training.interactions import Interactions, read_interactions
from batch.training.log_events import Reader
from batch.training.search import SEED, Search, Strategy
from flows.log.contract import LogUnavailable, PositionLost
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.settings import lane_settings, limits_of
from headrace.cli.checkout import commit
from headrace.cli.quality_screen import compared, day, print_legend, table_of, too_few
from headrace.console import FAILED, OK, UNAVAILABLE, err, print_json, progress_bar, read_settings, reading_bar
from headrace.options import Json
from headrace.settings import Settings
from schemas.registry import RegistryUnavailable
from state.id_key import use_id_key
from state.settings import PREFIX

FIGURES = ("HR@20", "MRR@20", "NDCG@20")


def run(settings: Settings, strategy: Strategy, trials: int, html: Path | None, json: bool) -> int:
    """Try settings, print the best; return the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    use_id_key(settings)
    try:
        data = _read(settings)
    except (LogUnavailable, RegistryUnavailable) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    except PositionLost as error:
        err.print(str(error), markup=False)
        return FAILED
    with err.status("folding the events before each cut"):
        search = Search(settings, data, strategy)
    if not len(search):
        err.print(f"the log holds {len(data.ts_ms)} interactions; in the newest fifth of them too few visitors go on "
                  f"from one item to the next", soft_wrap=True)  # fmt: skip
        return FAILED
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    study = search.study(f"sqlite:///{settings.data_dir / 'tune.db'}")
    _try(study, search, trials)
    if html is not None:
        _write_plots(study, html)
    with err.status("comparing the best settings with the present ones"):
        found = _found(study, search, data, strategy)
    if json:
        print_json(found)
    else:
        _show(found)
    return OK


def _read(settings: Settings) -> Interactions:
    with closing(open_log(settings.log_address, config=settings.kafka_config)) as log:
        start, end = log.start(), log.end()
        with reading_bar(sum(last - start.get(stream, 0) for stream, last in end.items())) as advance:
            reader = Reader(
                open_registry(settings), time.time_ns() // 1_000_000, limits_of(settings), settings.connect_timeout_s,
                advance,
            )  # fmt: skip
            return read_interactions(log, reader, lane_settings(settings).fold_params().weights)


def _try(study: optuna.Study, search: Search, trials: int) -> None:
    done, began = len([trial for trial in study.trials if trial.state.is_finished()]), time.perf_counter()
    with progress_bar("trials") as bar:
        task = bar.add_task("tuning", total=done + trials, completed=done, rate=0.0)

        def advance(*_: Any) -> None:
            made = bar.tasks[0].completed - done + 1
            bar.update(task, advance=1, rate=made / (time.perf_counter() - began))

        study.optimize(search.objective, trials, callbacks=[advance])


def _found(study: optuna.Study, search: Search, data: Interactions, strategy: Strategy) -> dict[str, Any]:
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    return {
        "strategy": strategy,
        **search.judged(study.best_params),
        "settings": {f"{PREFIX}{name.upper()}": value for name, value in study.best_params.items()},
        "trials": len(study.trials),
        "pruned": pruned,
        "predictions": len(search.target),
        "from_vectors": search.from_vectors,
        "run": {
            "folds": len(search), "seed": SEED, "commit": commit(), "events": len(data.ts_ms),
            "first_ms": int(data.ts_ms.min()), "last_ms": int(data.ts_ms.max()),
        },
    }  # fmt: skip


def _show(found: dict[str, Any]) -> None:
    out, run = Console(), found["run"]
    table = Table("setting", "best", title=f"the best of {found['trials']} trials")
    for name, value in found["settings"].items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    out.print(table)
    models = {name: found[name] for name in ("best", "present")}
    out.print(table_of(models, FIGURES, f"`{found['strategy']}`, {found['predictions']:,} predictions"))
    print_legend(out, FIGURES)
    for line in (
        "In brackets: 95 % intervals by bootstrap.",
        f"Data: {run['events']:,} events of {day(run['first_ms'])} to {day(run['last_ms'])} UTC; {run['folds']} folds, "
        f"seed {run['seed']}, commit {run['commit']}.",
        f"The settings change {found['from_vectors']:.0%} of the places of `{found['strategy']}`: "
        f"those that visitors' vectors fill.",
        f"The best settings are {compared(found['difference'], 'the present ones')}{too_few(found['predictions'])}.",
    ):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _write_plots(study: optuna.Study, path: Path) -> None:
    from optuna import visualization as show

    figures = [show.plot_optimization_history(study), show.plot_parallel_coordinate(study), show.plot_slice(study)]
    parts = [figure.to_html(full_html=False, include_plotlyjs=n == 0) for n, figure in enumerate(figures)]
    path.write_text("<!doctype html><meta charset=utf-8><title>headrace tune</title>" + "".join(parts))
    err.print(f"plots: {path}")


def command(
    trials: Annotated[int, typer.Option(min=1, help="Trials to add to the study.")] = 20,
    strategy: Annotated[Strategy, typer.Option(help="Strategy of the API whose lists are judged.")] = "hybrid",
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    json: Json = False,
) -> None:
    """Search the anchor's settings on the log's own past. The study is kept, and gone on with."""
    raise typer.Exit(run(read_settings(), strategy, trials, html, json))
