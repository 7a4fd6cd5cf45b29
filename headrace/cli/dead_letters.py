"""`headrace dead-letters`: list refused messages, show one, put them back."""

import base64
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.log.contract import Log, LogUnavailable
from flows.log.dead_letters import DeadLetter, each_letter, read_dead_letters, redrive
from flows.log.open_log import open_log
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.events import DEAD_LETTERS

ACTIONS = ("list", "show", "redrive")
AT_ONCE = 100


def run(
    settings: Settings, action: str, place: str, limit: int, skip: int, reason: str, topic: str, since: str, json: bool
) -> int:
    """Run one of the actions; return the exit code."""
    if action not in ACTIONS or (action == "show" and not place):
        err.print("use `list`, `show TOPIC:PARTITION:OFFSET`, or `redrive [TOPIC:PARTITION:OFFSET]`", markup=False)
        return WRONG_USAGE
    try:
        wanted = _filter(place, reason, topic, since)
    except ValueError:
        err.print(f"--since must be a time in ISO 8601, e.g. 2026-11-30T12:00:00Z; got {since!r}", markup=False)
        return WRONG_USAGE
    try:
        log = open_log(settings.log_address, [DEAD_LETTERS], settings.kafka_config)
        try:
            if action == "redrive":
                return _redrive(log, wanted, place, json)
            letters = read_dead_letters(log, limit, 0 if place else skip, wanted)
        finally:
            log.close()
    except LogUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if place and not letters:
        return _no_such(place)
    if json:
        print_json({"action": action, "letters": [_described(letter) for letter in letters]})
    elif action == "show":
        for letter in letters:  # several where the topic was made again
            Console().print(_described(letter))
            Console().print(letter.payload, markup=False)
    else:
        Console().print(_table(letters))
        if len(letters) == limit:
            err.print(f"there may be more: --skip {skip + limit}", markup=False)
    return OK


def _table(letters: Sequence[DeadLetter]) -> Table:
    """Return a table whose places are whole however narrow it is: `show` and `redrive` are given them."""
    table = Table(title=f"{len(letters)} dead letters")
    table.add_column("place", no_wrap=True, min_width=max((len(letter.place) for letter in letters), default=0))
    for name in ("reason", "detail", "bytes", "put back"):
        table.add_column(name, overflow="fold")
    for letter in letters:
        cells = letter.reason, letter.detail[:80], str(_size(letter)), _when(letter)
        table.add_row(Text(letter.place), *map(Text, cells))
    return table


def _filter(place: str, reason: str, topic: str, since: str) -> Callable[[DeadLetter], bool]:
    """Return the filter of letters; raises ValueError for an invalid time."""
    moment = datetime.fromisoformat(since) if since else datetime.fromtimestamp(0, UTC)
    since_ms = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000

    def wanted(letter: DeadLetter) -> bool:
        if place:
            return letter.place == place
        return (
            letter.ts_ms >= since_ms
            and reason in ("", letter.reason)
            and topic in ("", letter.stream.rpartition(":")[0])
        )

    return wanted


def _redrive(log: Log, wanted: Callable[[DeadLetter], bool], place: str, json: bool) -> int:
    """Put back every wanted letter that was not put back before."""
    back = before = cut = refused = 0
    waiting: list[DeadLetter] = []
    now_ms = time.time_ns() // 1_000_000
    found = each_letter(log, wanted)
    while waiting := [letter for _, letter in zip(range(AT_ONCE), found, strict=False)]:
        done = redrive(log, waiting, now_ms)
        back, before, cut, refused = (
            back + done.back, before + done.before, cut + done.cut, refused + done.refused
        )  # fmt: skip
    if place and not back + before + cut + refused:
        return _no_such(place)
    if json:
        print_json({"action": "redrive", "put_back": back, "put_back_before": before, "cut": cut, "refused": refused})
    else:
        err.print(f"{back} messages are on their topics again; {before} were before")
    if cut:
        err.print(f"{cut} letters hold only the head of their message and cannot be put back", markup=False)
    if refused:
        err.print(f"{refused} messages are refused by the log itself and stay letters", markup=False)
    return FAILED if cut or refused else OK


def _no_such(place: str) -> int:
    err.print(f"there is no dead letter of {place}", markup=False)
    return FAILED


def _size(letter: DeadLetter) -> int:
    return letter.length or len(letter.payload or b"")


def _when(letter: DeadLetter) -> str:
    return (
        datetime.fromtimestamp(letter.redriven_ms / 1000, UTC).isoformat("T", "seconds") if letter.redriven_ms else ""
    )


def _described(letter: DeadLetter) -> dict[str, object]:
    def text(data: bytes | None) -> str | None:
        return None if data is None else base64.b64encode(data).decode()

    headers = [(name, text(value)) for name, value in letter.headers]
    return {
        **letter._asdict(), "payload": text(letter.payload), "key": text(letter.key), "headers": headers,
        "length": _size(letter), "cut": letter.cut,
    }  # fmt: skip


def command(
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
    raise typer.Exit(run(read_settings(), action, place, limit, skip, reason, topic, since, json))
