"""`headrace evaluate`: events in, metrics out, as a table, JSON or an HTML page with plots."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console

from batch.evaluation.evaluate import Options, evaluate
from batch.evaluation.report import write_report
from batch.evaluation.tables import WrongTable
from flows.log.contract import LogUnavailable, PositionLost
from flows.settings import lane_settings
from headrace.cli.checkout import commit
from headrace.cli.evaluate_input import Input, Measured
from headrace.cli.quality_screen import compared, day, print_legend, table_of, too_few
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, read_settings, use_measuring_key
from headrace.loading.plan import Choices
from headrace.options import Json
from schemas.registry import RegistryUnavailable
from serving.scoring.parameters import DEFAULT, MixtureParams
from state.id_key import use_id_key

SHOWN = {
    "Accuracy": ("HR@20", "MRR@20", "NDCG@20"),
    "By kind of target and history": ("new_only.HR@20", "new_only.MRR@20", "cold_users.HR@20", "cold_items.HR@20"),
    "Several targets, and breadth": ("recall@20", "MAP@20", "coverage@20", "miscalibration@20"),
}


def with_overrides(params: MixtureParams, overrides: list[str]) -> MixtureParams:
    """Return the numbers with NAME=VALUE or NAME.INDEX=VALUE replaced, e.g. `power=1`, `theta.3=1.2`."""
    for text in overrides:
        name, _, value = text.partition("=")
        field, _, index = name.partition(".")
        if field not in MixtureParams._fields:
            raise WrongTable(f"--set {name}: scoring has {', '.join(MixtureParams._fields)}")
        try:
            number = float(value)
            if field == "power":
                params = params._replace(power=number)
            else:
                changed = np.array(getattr(params, field))
                changed.flat[int(index)] = number
                params = params._replace(**{field: changed})  # type: ignore[arg-type]
        except (ValueError, IndexError):
            raise WrongTable(f"--set {text}: give NAME.INDEX=NUMBER") from None
    return params


def run(given: Input, options: Options, html: Path | None, json: bool) -> int:
    """Evaluate and print; return the exit code."""
    try:
        with err.status("reading the events") if given.live is None else nullcontext():  # a log has a bar of its own
            measured = given.read(options.settings.session_gap_ms)
        _check(measured, options)
    except WrongTable as error:
        err.print(str(error), markup=False, soft_wrap=True)
        return WRONG_USAGE
    except PositionLost as error:
        err.print(str(error), markup=False, soft_wrap=True)
        return FAILED
    except (LogUnavailable, RegistryUnavailable) as error:
        err.print(str(error), markup=False, soft_wrap=True)
        return UNAVAILABLE
    err.print(f"{len(measured.learned):,} events to learn, {len(measured.asked.target):,} predictions to make")
    found = evaluate(measured.learned, measured.asked, options, measured.categories, err.status)
    found["run"] |= {"source": measured.source, "commit": commit(), "next": given.what}
    if given.train is None:
        found["run"]["split"] = given.share
    if html is not None:
        write_report(html, found, _about(found))
        err.print(f"report: {html}")
    if json:
        print_json(found)
    else:
        _show(found)
    return OK


def _check(measured: Measured, options: Options) -> None:
    if not len(measured.asked.target):
        raise WrongTable("there is nothing to predict")
    if options.diversity_method == "calibrated" and not measured.categories:
        raise WrongTable("--diversity-method calibrated needs a column `category`, or products with categories")
    if options.mode == "prequential" and measured.asked.basket is not None:
        raise WrongTable("--mode prequential learns one event after each prediction; it cannot predict baskets")


def _verdict(found: dict[str, Any]) -> str:
    """Return one sentence: how headrace compares with the best baseline."""
    own = f"headrace finds the target in {found['HR@20']:.1%} of the {found['n']:,} lists of 20"
    if not found["baselines"]:
        return own + "."
    name, best = max(found["baselines"].items(), key=lambda one: float(one[1]["HR@20"]))
    other = f"the best baseline, {name} ({best['HR@20']:.1%})"
    return f"{own}: {compared(best['difference'], other)}{too_few(found['n'])}."


def _about(found: dict[str, Any]) -> list[str]:
    """Return sentences on data, settings and version, and the verdict."""
    run = found["run"]
    settings = {name: run[name] for name in ("split", "next", "fit", "ranker", "diversity") if name in run}
    settings |= {"strategy": found["strategy"], "repeat": found["repeat"], "mode": found["mode"]}
    return [
        f"Data: {run['source']}, {found['train_events']:,} events learned, "
        f"of {day(run['first_ms'])} to {day(run['last_ms'])} UTC.",
        "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".",
        f"headrace {run['version']}, commit {run['commit']}.",
        _verdict(found),
    ]


def _show(found: dict[str, Any]) -> None:
    out = Console()
    models = {"headrace": found} | found["baselines"]
    for title, names in SHOWN.items():
        out.print(table_of(models, names, f"{title}, {found['n']:,} predictions"))
    print_legend(out, [name for names in SHOWN.values() for name in names if found.get(name) is not None])
    out.print(f"In brackets: 95 % intervals by bootstrap, seed {found['run']['bootstrap_seed']}.", highlight=False)
    for line in _about(found):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    err.print(f"{found['ms_per_prediction']:.3f} ms a prediction; {found['train_events_per_s']:,} training events/s")


def command(
    train: Annotated[Path | None, typer.Option(help="Events: user, item, ts_ms, perhaps kind, session.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Predictions: history (list, oldest first), target.")] = None,
    events: Annotated[Path | None, typer.Option(help="One table instead, split by time.")] = None,
    live: Annotated[bool, typer.Option("--live", help="The log of the running shop instead, split by time.")] = False,
    split: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of the sessions that is learned (--events, --live).")
    ] = 0.8,
    what: Annotated[
        Literal["item", "basket"], typer.Option("--next", help="basket: a user's next session (--events, --live)")
    ] = "item",
    repeat: Annotated[
        Literal["allow", "demote", "exclude"], typer.Option(help="What becomes of items of the history")
    ] = "allow",
    mode: Annotated[
        Literal["frozen", "prequential"], typer.Option(help="prequential: learn each event after predicting it")
    ] = "frozen",
    fit: Annotated[bool, typer.Option(help="Fit the numbers to the training events, as every night.")] = True,
    ranker: Annotated[Literal["auto", "off"], typer.Option(help="Trees on top; auto: where they win")] = "auto",
    diversity: Annotated[float, typer.Option(min=0, max=1, help="Strength of the re-ranking for variety")] = 0.0,
    diversity_method: Annotated[
        Literal["mmr", "dpp", "calibrated"], typer.Option(help="calibrated needs a column `category`")
    ] = "mmr",
    override: Annotated[list[str], typer.Option("--set", help="NAME.INDEX=VALUE of scoring; may repeat.")] = [],  # noqa: B006
    baselines: Annotated[bool, typer.Option(help="Compare with the baselines in the same run.")] = True,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    map: Annotated[str, typer.Option(help="Fields from the columns of --events, as in `headrace load`.")] = "",
    kind: Annotated[str, typer.Option(help="Type of every event, as in `headrace load`.")] = "",
    kinds: Annotated[str, typer.Option(help="Types by the column's values, as in `headrace load`.")] = "",
    preset: Annotated[str, typer.Option(help="The export that --events is, as in `headrace load`.")] = "",
    json: Json = False,
) -> None:
    """Learn a part of the past with the real lane, predict the rest with the real scorer, and count."""
    settings = read_settings(beside_up=live)
    if live:
        use_id_key(settings)
    else:
        use_measuring_key()
    try:
        params = with_overrides(DEFAULT, override)
    except WrongTable as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(WRONG_USAGE) from None
    lane = lane_settings(settings)
    options = Options(repeat, mode, fit, ranker, diversity, diversity_method, params=params, settings=lane)
    mapped = Choices(map, kind, kinds, preset) if map or kind or kinds or preset else None
    options = options if baselines else replace(options, baselines=())
    given = Input(train, pairs, events, settings if live else None, split, what, mapped)
    raise typer.Exit(run(given, options, html, json))
