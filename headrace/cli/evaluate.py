"""`headrace evaluate`: tables in, metrics out, as a table, JSON or an HTML page with plots."""

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from batch.evaluation.evaluate import Options, evaluate
from batch.evaluation.groups import Categories
from batch.evaluation.report import write_report
from batch.evaluation.tables import WrongTable, read_events, read_pairs, split_baskets, split_by_time
from batch.training.simulated_shop import Pairs
from flows.settings import lane_settings
from headrace.console import FAILED, OK, WRONG_USAGE, err, print_json, read_settings, use_measuring_key
from headrace.loading.as_table import write_table
from headrace.loading.errors import BadFile
from headrace.loading.plan import Choices
from headrace.options import Json
from schemas.events import Columns
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


class Tables(NamedTuple):
    """The tables to fold and to predict: a pair of files, or one that is split by time."""

    train: Path | None
    pairs: Path | None
    events: Path | None
    share: float
    """Of the sessions, learned; with `events`."""
    what: Literal["item", "basket"]
    mapped: Choices | None = None
    """How to read `events`, where it is a file as a shop has it."""

    def read(self, session_gap_ms: int) -> tuple[Columns, Pairs, Categories]:
        """Return (events to fold, predictions to make, categories by item). Raises WrongTable."""
        if self.train is not None and self.pairs is not None:
            learned, categories = read_events(self.train)
            return learned, read_pairs(self.pairs), categories
        if self.events is None:
            raise WrongTable("give --train and --pairs, or --events")
        every, categories = self._read_all(self.events)
        split = split_by_time if self.what == "item" else split_baskets
        learned, asked = split(every, self.share, session_gap_ms)
        return learned, asked, categories

    def _read_all(self, file: Path) -> tuple[Columns, Categories]:
        if self.mapped is None:
            return read_events(file, by_session=self.what == "item")
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "events.parquet"
            try:
                write_table(file, self.mapped, table)
            except BadFile as error:
                raise WrongTable(str(error)) from None
            return read_events(table, by_session=self.what == "item")


def run(tables: Tables, options: Options, html: Path | None, json: bool) -> int:
    """Evaluate and print; return the exit code."""
    try:
        learned, asked, categories = tables.read(options.settings.session_gap_ms)
        if options.diversity_method == "calibrated" and not categories:
            raise WrongTable("--diversity-method calibrated needs a column `category`")
        if not len(asked.target):
            raise WrongTable("there is nothing to predict after the split")
        if options.mode == "prequential" and asked.basket is not None:
            raise WrongTable("--mode prequential learns one event after each prediction; it cannot predict baskets")
    except WrongTable as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    err.print(f"{len(learned):,} events to learn, {len(asked.target):,} predictions to make")
    found = evaluate(learned, asked, options, categories, err.status)
    if html is not None:
        write_report(html, found)
        err.print(f"report: {html}")
    if json:
        print_json(found)
    else:
        _show(found)
    return OK if found["n"] else FAILED


LEGEND = {
    "HR": "share of the predictions whose list holds the target", "MRR": "mean of 1 / its place",
    "NDCG, MAP": "the same for several targets, by place", "recall": "share of the targets found",
    "new_only": "targets that are not in the history", "cold_users": "histories under 10 events",
    "cold_items": "targets first seen in the last day", "coverage": "share of all items in some list",
    "miscalibration": "distance of category shares from those of the history; 0 is best",
}  # fmt: skip


def _verdict(found: dict[str, Any]) -> str:
    """Return one sentence: how headrace compares with the best baseline."""
    own = f"headrace finds the target in {found['HR@20']:.1%} of the {found['n']:,} lists of 20"
    if not found["baselines"]:
        return own + "."
    name, best = max(found["baselines"].items(), key=lambda one: float(one[1]["HR@20"]))
    gain, half = best["difference"]
    word = "no different from" if abs(gain) <= half else "better than" if gain > 0 else "worse than"
    difference = f"{100 * gain:+.2f} ± {100 * half:.2f} points"
    return f"{own}: {word} the best baseline, {name} ({best['HR@20']:.1%}), by {difference}."


def _cell(model: dict[str, Any], name: str) -> str:
    value, interval = model.get(name), model["interval"].get(name)
    if value is None:
        return "–"
    return f"{value:.4f}" if interval is None else f"{value:.4f} ({interval[0]:.3f}–{interval[1]:.3f})"


def _show(found: dict[str, Any]) -> None:
    table = Table("figure", "headrace", *found["baselines"], title=f"{found['n']:,} predictions, {found['mode']}")
    for name in SHOWN:
        table.add_row(name, *(_cell(model, name) for model in (found, *found["baselines"].values())))
    out = Console()
    out.print(table)
    for name, meaning in LEGEND.items():
        out.print(f"{name}: {meaning}", highlight=False)
    run = found["run"]
    first, last = (datetime.fromtimestamp(run[name] / 1000, UTC).isoformat() for name in ("first_ms", "last_ms"))
    out.print(f"In brackets: 95 % by bootstrap, seed {run['bootstrap_seed']}. headrace {run['version']}, repeats: "
              f"{found['repeat']}, events of {first} to {last}.", highlight=False)  # fmt: skip
    out.print(_verdict(found), highlight=False)
    err.print(f"{found['ms_per_prediction']:.3f} ms a prediction; {found['train_events_per_s']:,} training events/s")


def command(
    train: Annotated[Path | None, typer.Option(help="Events: user, item, ts_ms, perhaps kind, session.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Predictions: history (list, oldest first), target.")] = None,
    events: Annotated[Path | None, typer.Option(help="One table instead, split by time.")] = None,
    split: Annotated[float, typer.Option(help="Share of the sessions that is learned, with --events.")] = 0.8,
    what: Annotated[
        Literal["item", "basket"], typer.Option("--next", help="basket: a user's next session (--events)")
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
    use_measuring_key()
    lane = lane_settings(read_settings())
    try:
        params = with_overrides(DEFAULT, override)
    except WrongTable as error:
        err.print(str(error), markup=False)
        raise typer.Exit(WRONG_USAGE) from None
    options = Options(repeat, mode, fit, ranker, diversity, diversity_method, params=params, settings=lane)
    mapped = Choices(map, kind, kinds, preset) if map or kind or kinds or preset else None
    options = options if baselines else replace(options, baselines=())
    raise typer.Exit(run(Tables(train, pairs, events, split, what, mapped), options, html, json))
