"""Conventions of all commands: exit codes, one JSON object on stdout, logs and progress on stderr."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from headrace.exit_codes import FAILED as FAILED
from headrace.exit_codes import OK as OK
from headrace.exit_codes import UNAVAILABLE as UNAVAILABLE
from headrace.exit_codes import WRONG_USAGE as WRONG_USAGE
from headrace.run_file import is_running, read_run_file
from headrace.settings import Settings, load_settings
from schemas import ids
from state.settings import PREFIX

MOST_OF_A_TRACE = 16_384
"""Characters: an exception may hold all of what was asked."""

err = Console(stderr=True, soft_wrap=True)
"""Lines are not cut into pieces: who reads them may be a program."""


def print_json(value: dict[str, Any]) -> None:
    """Print the one JSON object a command with --json prints."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")
    sys.stdout.flush()


def read_settings(beside_up: bool = True) -> Settings:
    """Return the settings, and configure logging by them. Raises BadSettings.

    `beside_up`: what is not set is as in the `headrace up` that runs on the data folder. The run file of one that was
    killed counts for nothing, and is reported where Redis is not set otherwise.
    """
    settings = load_settings(beside_up)
    set_up_logging(settings)
    if beside_up and not settings.redis_url and read_run_file(settings.data_dir) and not is_running(settings.data_dir):
        err.print(f"the `headrace up` on {settings.data_dir} was killed; start it again", markup=False)
    return settings


def use_measuring_key() -> None:
    """Hash ids with MEASURING_KEY, in this process and those it starts."""
    ids.use_key(ids.MEASURING_KEY)
    os.environ[f"{PREFIX}ID_KEY"] = ids.MEASURING_KEY.hex()


def wants_text(settings: Settings) -> bool:
    """Return whether a person looks on, and not a machine."""
    return settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())


def set_up_logging(settings: Settings) -> None:
    """Send logs to stderr: JSON lines, or text where a person looks on."""
    text = wants_text(settings)
    renderers: list[Any] = [structlog.processors.format_exc_info, _cut_trace, structlog.processors.JSONRenderer()]
    if text:  # plain traces: rich ones print whole tables of rows
        renderers = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def _cut_trace(logger: Any, name: str, event: Any) -> Any:
    """Keep the beginning and the end of a long trace."""
    trace = event.get("exception", "")
    if len(trace) > MOST_OF_A_TRACE:
        half = MOST_OF_A_TRACE // 2
        event["exception"] = f"{trace[:half]}\n… {len(trace) - 2 * half} characters …\n{trace[-half:]}"
    return event


def progress_bar(unit: str) -> Progress:
    """Return a progress bar on stderr that shows the rate in `unit` a second."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>9,.0f} " + unit + "/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


@contextmanager
def reading_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while a log of `total` messages is read; to be called with the number of those read since."""
    began, done = time.perf_counter(), 0
    with progress_bar("messages") as bar:
        task = bar.add_task("reading the log", total=total, rate=0.0)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            bar.update(task, completed=done, rate=done / (time.perf_counter() - began))

        yield advance
