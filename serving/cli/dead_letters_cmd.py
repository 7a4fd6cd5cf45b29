"""`headrace dead-letters`: list refused messages, show one, put them back."""

import base64
import time

from rich.console import Console
from rich.table import Table

from flows.dead_letters import DeadLetter, read_dead_letters
from flows.log import LogUnavailable, Message
from flows.open_log import open_log
from schemas.events import DEAD_LETTERS
from serving.cli.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json
from state.settings import Settings

ACTIONS = ("list", "show", "redrive")


def run(settings: Settings, action: str, place: str, limit: int, json: bool) -> int:
    """Run one of the actions; return the exit code."""
    if action not in ACTIONS or (action == "show" and not place):
        err.print("use `list`, `show TOPIC:PARTITION:OFFSET`, or `redrive [TOPIC:PARTITION:OFFSET]`", markup=False)
        return WRONG_USAGE
    try:
        log = open_log(settings.log_address, [DEAD_LETTERS], settings.kafka_config)
        letters = read_dead_letters(log, limit)
        if place:
            letters = [letter for letter in letters if f"{letter.stream}:{letter.offset}" == place]
            if not letters:
                err.print(f"there is no dead letter of {place} among the first {limit:,}", markup=False)
                return FAILED
        if action == "redrive":
            now_ms = time.time_ns() // 1_000_000
            log.append([Message(letter.stream.rpartition(":")[0], None, letter.payload, now_ms) for letter in letters])
        log.close()
    except LogUnavailable as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json({"action": action, "letters": [_described(letter) for letter in letters]})
    elif action == "redrive":
        err.print(f"{len(letters)} messages are on their topics again")
    elif action == "show":
        Console().print(_described(letters[0]))
        Console().print(letters[0].payload, markup=False)
    else:
        table = Table("place", "reason", "detail", "bytes", title=f"{len(letters)} dead letters")
        for letter in letters:
            table.add_row(
                f"{letter.stream}:{letter.offset}", letter.reason, letter.detail[:80], str(len(letter.payload))
            )
        Console().print(table)
    return OK


def _described(letter: DeadLetter) -> dict[str, object]:
    return {**letter._asdict(), "payload": base64.b64encode(letter.payload).decode()}
