"""The `headrace` command: one typer application, its heavy parts imported only when they run.

Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 3 something it needs is out of reach.
"""

import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, set_up_logging
from headrace.settings import Settings, load_settings
from state.settings import PREFIX, BadSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # a batch of rows among them is megabytes
    help="Live recommendations on the event stream.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure on this machine; prints machine, data, repeats and stages.")
app.add_typer(bench, name="bench")

OnRequest = Annotated[
    bool, typer.Option(hidden=True, help="Load everything, then wait for a line on standard input; end when it ends.")
]
Repeats = Annotated[int, typer.Option(min=1, help="Runs; the median one is printed, and all their rates.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
EXTRAS = {
    "bytewax": "stream",
    "confluent_kafka": "stream",
    "polars": "stream",
    "faiss": "serve",
    "fastapi": "serve",
    "grpc": "serve",
    "grpc_health": "serve",
    "grpc_reflection": "serve",
    "grpc_status": "serve",
    "strawberry": "serve",
    "limits": "serve",
    "yaml": "serve",
    "uvicorn": "serve",
    "implicit": "batch",
    "lightgbm": "batch",
    "optuna": "batch",
    "plotly": "batch",
    "scipy": "batch",
}


def _settings() -> Settings:
    settings = load_settings()
    set_up_logging(settings)
    return settings


def _use_measuring_key() -> None:
    """Hash ids with MEASURING_KEY, in this process and those it starts."""
    ids = _part("schemas.ids")
    ids.use_key(ids.MEASURING_KEY)
    os.environ[f"{PREFIX}ID_KEY"] = ids.MEASURING_KEY.hex()


def _part(module: str) -> Any:
    """Import a command's module; a missing package is named with the extra that brings it."""
    gc.disable()  # an import makes objects by the ten thousand, and no garbage: a tenth of its time goes into looking
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        err.print(f"{error.name} is not installed: `pip install headrace[{extra}]` brings it")
        raise typer.Exit(UNAVAILABLE) from None
    finally:
        gc.enable()


def _wait_for_request(settings: Settings, warm_up: str) -> None:
    """Do what takes long at a start, then wait for a line; without one the supervisor is gone."""
    _part("state.id_key").use_id_key(settings)
    _part(warm_up).warm_up()
    if not sys.stdin.readline():
        raise typer.Exit(OK)


@app.command()
def settings(json: Json = False) -> None:
    """Print every setting: meaning, value, and where the value comes from."""
    _part("headrace.cli.settings").run(load_settings(), json)


@app.command()
def features(
    user: Annotated[str, typer.Option(help="Show the features of this user.")] = "",
    item: Annotated[str, typer.Option(help="Show the features of this item (lane of its hash).")] = "",
    json: Json = False,
) -> None:
    """Print the feature registry, or the live features of one user or item."""
    part = _part("headrace.cli.features")
    if user or item:
        raise typer.Exit(part.show(_settings(), "user" if user else "item", user or item, json))
    raise typer.Exit(part.list_features(json))


@app.command()
def flow(
    driver: Annotated[str, typer.Option(help="loop or bytewax")] = "loop",
    on_request: OnRequest = False,
) -> None:
    """Fold the log's events into rows, until SIGTERM or Ctrl-C."""
    if driver not in ("loop", "bytewax"):
        err.print(f"--driver must be loop or bytewax; got {driver!r}")
        raise typer.Exit(WRONG_USAGE)
    part, settings = _part("flows.run"), _settings()
    if on_request:
        _wait_for_request(settings, "flows.warm_up")
    raise typer.Exit(part.run_flow(settings, driver))


@app.command()
def serve(on_request: OnRequest = False) -> None:
    """Answer requests over HTTP and gRPC, until SIGTERM or Ctrl-C."""
    part, settings = _part("serving.app.server"), _settings()
    if on_request:
        _wait_for_request(settings, "serving.app.warm_up")
    raise typer.Exit(part.run_server(settings))


@app.command()
def up() -> None:
    """Start everything in one go: Redis, the embedded log, the flow and the server. Ctrl-C stops all of it."""
    raise typer.Exit(_part("headrace.cli.up").run(_settings()))


@app.command()
def anchor(
    action: Annotated[str, typer.Argument(help="train, rollback to the anchor before, or remove one")] = "train",
    version: Annotated[str, typer.Argument(help="The anchor that is removed.")] = "",
    force: Annotated[bool, typer.Option(help="Publish even if it finds less than the current one.")] = False,
    json: Json = False,
) -> None:
    """Train the nightly models on the log and publish them; flows refold, then servers follow."""
    if action == "rollback":
        raise typer.Exit(_part("headrace.cli.anchors").rollback(_settings(), json))
    if action == "remove" and version:
        raise typer.Exit(_part("headrace.cli.anchors").remove(_settings(), version, json))
    if action != "train" or version:
        err.print(
            "use `anchor`, `anchor train`, `anchor rollback` or `anchor remove VERSION`; "
            f"got {f'{action} {version}'.strip()!r}",
            markup=False,
        )
        raise typer.Exit(WRONG_USAGE)
    raise typer.Exit(_part("headrace.cli.anchor").run_anchor(_settings(), json, force))


@app.command()
def anchors(json: Json = False) -> None:
    """List the anchors there are: data, settings, code, metrics, parent, and which one is live."""
    raise typer.Exit(_part("headrace.cli.anchors").list_anchors(_settings(), json))


@app.command()
def topics() -> None:
    """Create the Kafka topics that are missing."""
    raise typer.Exit(_part("headrace.cli.topics").run(_settings()))


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    map: Annotated[str, typer.Option(help="Our fields from its columns: user=visitorid,item=itemid,ts=timestamp,…")],
    kind: Annotated[str, typer.Option(help="Type of every event, where no column tells (kind=COLUMN).")] = "view",
    kinds: Annotated[str, typer.Option(help="Types by the column's values: transaction=purchase,addtocart=…")] = "",
    dry_run: Annotated[
        bool, typer.Option(help="Show the first ten events and what cannot be read; load nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Load only so many rows; 0: all.")] = 0,
    json: Json = False,
) -> None:
    """Turn a table into events on the log, in time order. Loading a file twice adds nothing to the rows."""
    run = _part("headrace.cli.load").run
    raise typer.Exit(run(_settings(), file, map, kind, kinds, dry_run, limit, json))


@app.command()
def replay(
    generation: Annotated[str, typer.Argument(help="Name of the generation to build, e.g. g2.")],
    first: Annotated[str, typer.Option("--from", help="Fold events from this time on; default: all.")] = "",
    until: Annotated[str, typer.Option("--to", help="Fold up to this time; now: to the end, and live later.")] = "now",
    offsets: Annotated[list[str], typer.Option(help="TOPIC:PARTITION:FIRST-END instead of times; may repeat.")] = [],  # noqa: B006
    override: Annotated[list[str], typer.Option("--set", help="NAME=VALUE of a fold setting; may repeat.")] = [],  # noqa: B006
    max_rate: Annotated[float, typer.Option(help="Messages a second at most; 0: as fast as it goes.")] = 0,
    driver: Annotated[str, typer.Option(help="loop or bytewax")] = "loop",
    json: Json = False,
) -> None:
    """Fold any part of the log again into a generation beside the live one. The same command goes on after a stop."""
    run = _part("headrace.cli.replay").replay
    raise typer.Exit(run(_settings(), generation, first, until, offsets, override, max_rate, driver, json))


@app.command()
def diff(
    left: str,
    right: str,
    sample: Annotated[int, typer.Option(help="Items and sessions compared in depth.")] = 500,
    threshold: Annotated[float, typer.Option(help="Largest share of differing rows that passes.")] = 0.0,
    json: Json = False,
) -> None:
    """Compare two generations; exit code 1 when more than --threshold of their rows differ."""
    raise typer.Exit(_part("headrace.cli.diff").run(_settings(), left, right, sample, threshold, json))


@app.command()
def switch(generation: str, json: Json = False) -> None:
    """Make a generation the live one; flows and servers follow within a second."""
    raise typer.Exit(_part("headrace.cli.generations").switch(_settings(), generation, json))


@app.command()
def rollback(json: Json = False) -> None:
    """Make the generation live again that was live before the last switch."""
    raise typer.Exit(_part("headrace.cli.generations").rollback(_settings(), json))


@app.command()
def drop(generation: str, json: Json = False) -> None:
    """Remove a generation's rows, in chunks. The live one cannot be dropped."""
    raise typer.Exit(_part("headrace.cli.generations").drop(_settings(), generation, json))


@app.command()
def status(json: Json = False) -> None:
    """Print generations, lanes, owners, positions, lag and anchors."""
    raise typer.Exit(_part("headrace.cli.status").run(_settings(), json))


@app.command("dead-letters")
def dead_letters(
    action: Annotated[str, typer.Argument(help="list, show or redrive")] = "list",
    place: Annotated[str, typer.Argument(help="TOPIC:PARTITION:OFFSET of one letter, for show and redrive")] = "",
    limit: Annotated[int, typer.Option(help="Most letters listed.")] = 1000,
    skip: Annotated[int, typer.Option(help="Oldest letters passed over before the list begins.")] = 0,
    reason: Annotated[str, typer.Option(help="Only letters of this reason.")] = "",
    topic: Annotated[str, typer.Option(help="Only letters of this topic.")] = "",
    since: Annotated[str, typer.Option(help="Only letters written at or after this time (ISO 8601).")] = "",
    json: Json = False,
) -> None:
    """List refused messages, show one, or put them back onto their topics, each one once."""
    run = _part("headrace.cli.dead_letters").run
    raise typer.Exit(run(_settings(), action, place, limit, skip, reason, topic, since, json))


@app.command()
def experiments(
    name: Annotated[str, typer.Argument(help="One of the live book's experiments; none: list them.")] = "",
    event: Annotated[str, typer.Option(help="What is hoped for: purchase, click, add_to_cart, …")] = "purchase",
    within: Annotated[float, typer.Option(help="Hours after the first list shown that count.")] = 24,
    json: Json = False,
) -> None:
    """Experiments of the live book; of one of them, what each arm's visitors did, with its uncertainty."""
    raise typer.Exit(_part("headrace.cli.experiments").run(_settings(), name, event, within, json))


@app.command()
def rules(
    action: Annotated[str, typer.Argument(help="show, lint FILE, test FILE, put FILE, history, back VERSION")] = "show",
    what: Annotated[str, typer.Argument(help="A book of rules (YAML or JSON), or a version.")] = "",
    user: Annotated[str, typer.Option(help="test: the user who asks.")] = "",
    item: Annotated[list[str], typer.Option(help="test: an item in context; may repeat.")] = [],  # noqa: B006
    placement: Annotated[str, typer.Option(help="test: where the list is shown.")] = "",
    country: Annotated[str, typer.Option(help="test: the visitor's country.")] = "",
    count: Annotated[int, typer.Option(help="test: how many items.")] = 10,
    at: Annotated[str, typer.Option(help="test: time of the request, ISO 8601.")] = "now",
    author: Annotated[str, typer.Option(help="put: who puts it there; default: the login.")] = "",
    note: Annotated[str, typer.Option(help="put: why.")] = "",
    json: Json = False,
) -> None:
    """Business rules: try a book on a request, check it, make it live, look back, go back."""
    request = {"user": user, "items": item, "placement": placement, "country": country, "count": count}
    raise typer.Exit(_part("headrace.cli.rules").run(_settings(), action, what, request, at, author, note, json))


@app.command()
def keys(
    action: Annotated[str, typer.Argument(help="list, add NAME or remove NAME")] = "list",
    name: Annotated[str, typer.Argument(help="Whose key it is.")] = "",
    preset: Annotated[
        str,
        typer.Option(
            help="Scopes of one kind of caller. storefront: recommend, events; backend: also catalogue, privacy;"
            " admin: all."
        ),
    ] = "",
    scope: Annotated[
        list[str],
        typer.Option(
            help="recommend: lists of items (the default). events: send what visitors do. catalogue: send and remove"
            " products. privacy: erase users, read their histories. rules: read and replace the book. operate: metrics"
            " and live numbers. May repeat."
        ),
    ] = [],  # noqa: B006
    per_second: Annotated[int, typer.Option(min=0, help="Recommendations a second; 0: no limit.")] = 0,
    json: Json = False,
) -> None:
    """API keys: list, add, remove. A key is shown once; only its hash is kept."""
    raise typer.Exit(_part("headrace.cli.keys").run(_settings(), action, name, preset, scope, per_second, json))


@app.command()
def demo(
    end: Annotated[bool, typer.Option("--exit", help="Stop the server at the end.")] = False,
) -> None:
    """A year of real grocery shopping becomes live recommendations."""
    raise typer.Exit(_part("headrace.demo").run(_settings(), end))


@app.command()
def evaluate(
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
    _use_measuring_key()
    run = _part("headrace.cli.evaluate").run
    raise typer.Exit(
        run(
            _settings(),
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


@app.command()
def tune(
    trials: Annotated[int, typer.Option(help="Trials to add to the study.")] = 20,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots.")] = None,
    json: Json = False,
) -> None:
    """Search the anchor's settings on the log's own past. The study is kept, and gone on with."""
    raise typer.Exit(_part("headrace.cli.tune").run(_settings(), trials, html, json))


@app.command()
def torture(
    rounds: Annotated[int, typer.Option(help="How often every fault is played.")] = 1,
    fault: Annotated[list[str], typer.Option(help="Only this fault; may repeat.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Seed of the first round; the next ones count up.")] = 1,
    outage: Annotated[float, typer.Option(help="How long outages last, in seconds.")] = 10,
    fuzz: Annotated[int, typer.Option(help="Damaged messages put through decoder and lane first.")] = 0,
    json: Json = False,
) -> None:
    """Kill and starve the real parts, and compare the rows with an undisturbed run, byte for byte."""
    _use_measuring_key()
    raise typer.Exit(_part("headrace.torture.run").run(rounds, fault, seed, outage, fuzz, json))


@bench.callback()
def _bench() -> None:
    _use_measuring_key()


@bench.command("ingest")
def bench_ingest(
    log: Annotated[str, typer.Option(help="sqlite or kafka")] = "sqlite",
    events: Annotated[int, typer.Option(help="Events measured.")] = 1_000_000,
    users: Annotated[int, typer.Option(help="Users with a full history before the clock starts.")] = 1_000_000,
    items: Annotated[int, typer.Option(help="Items.")] = 200_000,
    cached: Annotated[int, typer.Option(help="Users the lane may keep in memory.")] = 1_000_000,
    full_page_cache: Annotated[
        bool, typer.Option("--full-page-cache", help="First fill the page cache, as on a machine that ran for a day.")
    ] = False,
    repeats: Repeats = 3,
    json: Json = False,
) -> None:
    """From log bytes to committed Redis rows: events a second and microseconds by stage."""
    measure = _part("headrace.bench.ingest").run
    raise typer.Exit(measure(log, events, users, items, cached, full_page_cache, repeats, json))


@bench.command("freshness")
def bench_freshness(
    rate: Annotated[float, typer.Option(help="Events a second while measuring.")] = 1000,
    rps: Annotated[float, typer.Option(help="Requests a second while measuring.")] = 100,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 20,
    log: Annotated[str, typer.Option(help="sqlite or kafka (a broker of its own)")] = "sqlite",
    json: Json = False,
) -> None:
    """From the append of an event to the first answer that reflects it, in milliseconds."""
    raise typer.Exit(_part("headrace.bench.freshness").run(rate, rps, seconds, log, json))


@bench.command("serve")
def bench_serve(
    clients: Annotated[int, typer.Option(help="Connections that ask again and again.")] = 64,
    seconds: Annotated[float, typer.Option(help="How long to measure each way.")] = 10,
    users: Annotated[int, typer.Option(help="Users.")] = 1_000_000,
    items: Annotated[int, typer.Option(help="Items.")] = 200_000,
    events: Annotated[int, typer.Option(help="Events folded before.")] = 3_000_000,
    rate: Annotated[float, typer.Option(help="Open load, requests a second; 0: half and 4/5 of what came.")] = 0,
    repeats: Repeats = 3,
    json: Json = False,
) -> None:
    """Answers a second over HTTP, gRPC, a gRPC stream and batches; their times; the server's CPU for each."""
    raise typer.Exit(_part("headrace.bench.serve").run(clients, seconds, users, items, events, rate, repeats, json))


@bench.command("catalogue")
def bench_catalogue(
    items: Annotated[str, typer.Option(help="Items, e.g. 200k or 10M.")] = "1M",
    factors: Annotated[int, typer.Option(min=2, help="Factors of an item; even.")] = 64,
    queries: Annotated[int, typer.Option(min=1, help="Searches.")] = 1_000,
    json: Json = False,
) -> None:
    """Build the vector index of a large catalogue: time, bytes an item, recall against exact search, milliseconds."""
    raise typer.Exit(_part("headrace.bench.catalogue").run(items, factors, queries, json))


@bench.command("outage")
def bench_outage(
    rps: Annotated[float, typer.Option(help="Requests a second.")] = 200,
    seconds: Annotated[float, typer.Option(help="How long the load lasts.")] = 60,
    away: Annotated[float, typer.Option(help="Seconds Redis stays away each time.")] = 5,
    json: Json = False,
) -> None:
    """Steady load while Redis is killed and started again twice, an anchor switches, and Redis hangs in four ways."""
    raise typer.Exit(_part("headrace.bench.outage").run(rps, seconds, away, json))


@bench.command("replay")
def bench_replay(
    events: Annotated[int, typer.Option(help="Events replayed.")] = 1_000_000,
    rps: Annotated[float, typer.Option(help="Requests a second beside it.")] = 100,
    json: Json = False,
) -> None:
    """A full-speed replay beside a live server: messages a second, and what readers notice."""
    raise typer.Exit(_part("headrace.bench.replay").run(events, rps, json))


@app.command()
def version(json: Json = False) -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    number = installed("headrace")
    if json:
        print_json({"version": number})
    else:
        sys.stdout.write(number + "\n")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except BadSettings as error:
        err.print(f"settings: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(WRONG_USAGE)
    except BrokenPipeError:
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
