"""The `headrace` command: the table of its commands, each of which is a file of this folder, read when it is run.

Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 3 something it needs is out of reach.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from headrace.cli.extras import extra_of
from headrace.exit_codes import FAILED, UNAVAILABLE, WRONG_USAGE
from state.settings import BadSettings

COMMANDS = {
    "settings": "Print every setting: meaning, value, and where the value comes from.",
    "features": "Print the feature registry, or the live features of one user or item.",
    "flow": "Fold the log's events into rows, until SIGTERM or Ctrl-C.",
    "serve": "Answer requests over HTTP and gRPC, until SIGTERM or Ctrl-C.",
    "up": "Start everything in one go: Redis, the embedded log, the flow and the server. Ctrl-C stops all of it.",
    "anchor": "Train the nightly models on the log and publish them; flows refold, then servers follow.",
    "night": "Train at the set hour of every night, and once when there is first enough to learn from.",
    "anchors": "List the anchors there are: data, settings, code, metrics, parent, and which one is live.",
    "topics": "Create the Kafka topics that are missing.",
    "load": "Turn a file into events on the log, in time order. Loading a file twice adds nothing to the rows.",
    "replay": "Fold any part of the log again into a generation beside the live one. Again: it goes on after a stop.",
    "diff": "Compare two generations; exit code 1 when more than --threshold of their rows differ.",
    "switch": "Make a generation the live one; flows and servers follow within a second.",
    "rollback": "Make the generation live again that was live before the last switch.",
    "drop": "Remove a generation's rows, in chunks. The live one cannot be dropped.",
    "backup": "Copy log, rows, anchors and keys of this machine into a new folder, while everything runs.",
    "restore": "Put a backup into an empty data folder; then start `headrace up`.",
    "status": "Print generations, lanes, owners, positions, lag and anchors, and a verdict; exit code 1 when ill.",
    "dead-letters": "List refused messages, show one, or put them back onto their topics, each one once.",
    "experiments": "Experiments of the live book; of one of them, what each arm's visitors did, with its uncertainty.",
    "rules": "Business rules: begin a book, try it on a request, check it, make it live, look back, go back.",
    "keys": "API keys: list, add, remove. A key is shown once; only its hash is kept.",
    "demo": "A year of real grocery shopping becomes live recommendations.",
    "evaluate": "Learn a part of the past with the real lane, predict the rest with the real scorer, and count.",
    "tune": "Search the anchor's settings on the log's own past. The study is kept, and gone on with.",
    "plan": "Say what a shop of some size needs: processes, memory, disk, network, and what gives out first.",
    "torture": "Kill and starve the real parts, and compare the rows with an undisturbed run, byte for byte.",
    "version": "Print the version.",
}
"""What each command does; `headrace.cli.NAME` holds it."""
BENCHES = {
    "ingest": "From log bytes to committed Redis rows: events a second and microseconds by stage.",
    "freshness": "From the append of an event to the first answer that reflects it, in milliseconds.",
    "serve": "Answers a second over HTTP, gRPC, a gRPC stream and batches; their times; the server's CPU for each.",
    "catalogue": "Build the vector index of a large catalogue: time, bytes an item, recall, milliseconds.",
    "outage": "Steady load while Redis is killed twice and hangs in four ways, and an anchor switches.",
    "replay": "A full-speed replay beside a live server: messages a second, and what readers notice.",
}
"""What each of `headrace bench` measures; `headrace.bench.NAME` holds it."""


def load_command(package: str, name: str) -> Any:
    """Return a command by its name, its module imported. Raises ModuleNotFoundError for a package that is missing."""
    module: Any = importlib.import_module(f"{package}.{name.replace('-', '_')}")
    app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)  # locals: a batch of rows is megabytes
    app.command(name)(module.command)
    command = typer.main.get_command(app)
    command.name = name
    return command


class _Commands(TyperGroup):
    """The commands of one package. Listing them imports none of them: each brings a second of imports along."""

    package, table = "headrace.cli", COMMANDS

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        listed = {name: TyperCommand(name, help=line) for name, line in self.table.items()}
        self.commands = {**listed, **self.commands}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, imported; an unknown name is a usage error with suggestions."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(self.package, name) if name in self.table else command, rest


class _Benches(_Commands):
    package, table = "headrace.bench", BENCHES


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Live recommendations on the event stream.",
)
bench = typer.Typer(
    cls=_Benches, no_args_is_help=True, help="Measure on this machine; prints machine, data, repeats and stages."
)
app.add_typer(bench, name="bench")


@app.callback()
def _headrace() -> None:
    """Live recommendations on the event stream."""


@bench.callback()
def _bench() -> None:
    from headrace.console import use_measuring_key

    use_measuring_key()


def main() -> None:
    """Run the command line; what is wrong with its settings or its installation is one line on stderr."""
    try:
        app()
    except BadSettings as error:
        sys.stderr.write(f"settings: {error}\n")
        sys.exit(WRONG_USAGE)
    except ModuleNotFoundError as error:
        extra = extra_of(error)
        if extra is None:
            raise
        sys.stderr.write(f"{error.name} is not installed: `pip install headrace[{extra}]` brings it\n")
        sys.exit(UNAVAILABLE)
    except BrokenPipeError:
        sys.exit(FAILED)
