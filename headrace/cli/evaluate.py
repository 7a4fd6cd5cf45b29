"""`headrace evaluate`: tables in, metrics out, as a table, JSON or an HTML page with plots."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from batch.evaluation.evaluate import Options, evaluate
from batch.evaluation.report import write_report
from batch.evaluation.tables import WrongTable, read_events, read_pairs, split_baskets, split_by_time
from flows.settings import lane_settings
from headrace.console import FAILED, OK, WRONG_USAGE, err, print_json, read_settings, use_measuring_key
from headrace.options import Json
from headrace.settings import Settings
from serving.scoring.parameters import DEFAULT, MixtureParams

SHOWN = ("HR@20", "MRR@20", "NDCG@20", "recall@20", "MAP@20", "new_only.HR@20", "new_only.MRR@20", "cold_users.HR@20",
         "cold_items.HR@20", "miscalibration@20", "coverage@20")  # fmt: skip


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


def run(
    settings: Settings, train: Path | None, pairs: Path | None, events: Path | None, share: float, what: str,
    repeat: str, mode: str, fit: bool, ranker: str, diversity: float, method: str, overrides: list[str],
    baselines: bool, html: Path | None, json: bool,
) -> int:  # fmt: skip
    """Evaluate and print; return the exit code."""
    try:
        if repeat not in ("allow", "demote", "exclude") or mode not in ("frozen", "prequential"):
            raise WrongTable("--repeat is allow, demote or exclude; --mode is frozen or prequential")
        if what not in ("item", "basket"):
            raise WrongTable("--next is item or basket")
        if ranker not in ("auto", "off"):
            raise WrongTable("--ranker is auto or off")
        if not 0 <= diversity <= 1:
            raise WrongTable("--diversity is between 0 and 1")
        if method not in ("mmr", "dpp", "calibrated"):
            raise WrongTable("--diversity-method is mmr, dpp or calibrated")
        lane = lane_settings(settings)
        if train is not None and pairs is not None:
            (learned, categories), asked = read_events(train), read_pairs(pairs)
        elif events is not None:
            split = split_by_time if what == "item" else split_baskets
            every, categories = read_events(events, by_session=what == "item")
            learned, asked = split(every, share, lane.session_gap_ms)
        else:
            raise WrongTable("give --train and --pairs, or --events")
        if method == "calibrated" and not categories:
            raise WrongTable("--diversity-method calibrated needs a column `category`")
        if not len(asked.target):
            raise WrongTable("there is nothing to predict after the split")
        if mode == "prequential" and asked.basket is not None:
            raise WrongTable("--mode prequential learns one event after each prediction; it cannot predict baskets")
        options = Options(repeat, mode, fit, ranker, diversity, method, True, with_overrides(DEFAULT, overrides), lane)
        options = options if baselines else replace(options, baselines=())
    except WrongTable as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    with err.status(f"{len(learned):,} events to learn, {len(asked.target):,} predictions to make"):
        found = evaluate(learned, asked, options, categories)
    if html is not None:
        write_report(html, found)
        err.print(f"report: {html}")
    if json:
        print_json(found)
    else:
        _show(found)
    return OK if found["n"] else FAILED


def _show(found: dict[str, Any]) -> None:
    table = Table("figure", "headrace", *found["baselines"], title=f"{found['n']:,} predictions, {found['mode']}")
    for name in SHOWN:
        values = [model.get(name) for model in (found, *found["baselines"].values())]
        table.add_row(name, *("–" if value is None else f"{value:.4f}" for value in values))
    Console().print(table)
    low, high = found["interval"]["HR@20"]
    err.print(f"HR@20 95 % interval {low:.4f} to {high:.4f}; {found['ms_per_prediction']:.3f} ms a prediction; "
              f"{found['train_events_per_s']:,} training events/s")  # fmt: skip


def command(
    train: Annotated[Path | None, typer.Option(help="Events: user, item, ts_ms, perhaps kind, session.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Predictions: history (list, oldest first), target.")] = None,
    events: Annotated[Path | None, typer.Option(help="One table instead, split by time.")] = None,
    split: Annotated[float, typer.Option(help="Share of the sessions that is learned, with --events.")] = 0.8,
    what: Annotated[str, typer.Option("--next", help="item; basket: a user's next session (--events)")] = "item",
    repeat: Annotated[str, typer.Option(help="allow, demote or exclude items of the history")] = "allow",
    mode: Annotated[str, typer.Option(help="frozen, or prequential: learn each event after predicting it")] = "frozen",
    fit: Annotated[bool, typer.Option(help="Fit the numbers to the training events, as every night.")] = True,
    ranker: Annotated[str, typer.Option(help="Trees on top: auto (where they win), off")] = "auto",
    diversity: Annotated[float, typer.Option(help="Strength of the re-ranking for variety, 0 to 1")] = 0.0,
    diversity_method: Annotated[str, typer.Option(help="mmr, dpp or calibrated (needs a column `category`)")] = "mmr",
    override: Annotated[list[str], typer.Option("--set", help="NAME.INDEX=VALUE of scoring; may repeat.")] = [],  # noqa: B006
    baselines: Annotated[bool, typer.Option(help="Compare with the baselines in the same run.")] = True,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    json: Json = False,
) -> None:
    """Learn a part of the past with the real lane, predict the rest with the real scorer, and count."""
    use_measuring_key()
    raise typer.Exit(
        run(
            read_settings(),
            train,
            pairs,
            events,
            split,
            what,
            repeat,
            mode,
            fit,
            ranker,
            diversity,
            diversity_method,
            override,
            baselines,
            html,
            json,
        )
    )
