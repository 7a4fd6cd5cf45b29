"""`headrace replay`: fold any part of the log again, into a generation of its own beside the live one."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from flows.connect import open_store
from flows.flow import POLL_S, Flow
from flows.fold.erased_users import erasures_of
from flows.log.contract import Log, LogUnavailable, PositionLost, RawBatch
from flows.run import run_loop
from flows.signals import stop_on_signals
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json, progress_bar, read_settings
from headrace.options import Json
from headrace.settings import Settings
from schemas.events import TOPICS
from schemas.registry import RegistryUnavailable
from state.generations import (
    FOLD_SETTINGS,
    Generation,
    live_generation,
    new_generation,
    read_generation,
    write_generation,
)
from state.store.contract import Positions, Store, StoreUnavailable

NAME = r"[a-z0-9-]+"


class WrongRange(Exception):
    """The requested range or setting is invalid."""


def parse_time(text: str, now_ms: int) -> int:
    """Return ms since 1970 of `now` or an ISO 8601 time (UTC unless it says).

    >>> parse_time("2026-11-01T00:00Z", 0)
    1793491200000
    """
    if text == "now":
        return now_ms
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WrongRange(f"{text!r} is neither `now` nor a time like 2026-11-01T00:00Z") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def parse_offsets(texts: list[str]) -> tuple[Positions, Positions]:
    """Return (start, end) of ranges TOPIC:PARTITION:FIRST-END (END is not folded).

    >>> parse_offsets(["ratings:3:12-90"])
    ({'ratings:3': 12}, {'ratings:3': 90})
    """
    start, until = {}, {}
    for text in texts:
        stream, _, bounds = text.rpartition(":")
        first, _, end = bounds.partition("-")
        if stream.rpartition(":")[0] not in TOPICS or not (first.isdigit() and end.isdigit()):
            raise WrongRange(f"{text!r} is not TOPIC:PARTITION:FIRST-END with a topic of {', '.join(TOPICS)}")
        start[stream], until[stream] = int(first), int(end)
    return start, until


def parse_overrides(settings: Settings, overrides: list[str]) -> Settings:
    """Return the settings with NAME=VALUE replaced; only what a fold depends on can be."""
    values: dict[str, Any] = {}
    for text in overrides:
        name, _, value = text.partition("=")
        if name not in FOLD_SETTINGS:
            raise WrongRange(f"{name!r} is not a setting of the fold; those are {', '.join(FOLD_SETTINGS)}")
        values[name] = value
    try:
        changed = type(settings)(**{**settings.model_dump(), **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise WrongRange(f"--set {first['loc'][0]}: {first['msg']}; got {first['input']!r}") from None
    return changed


class ReplayFlow(Flow):
    """A flow that stops where the replay ends, at no more than a given rate."""

    def __init__(self, settings: Settings, generation: Generation, until: Positions, max_rate: float) -> None:
        if max_rate:  # what is folded in a second at most: a larger batch would be a burst
            most = min(settings.batch_max_events, max(int(max_rate), 1))
            settings = settings.model_copy(update={"batch_max_events": most})
        super().__init__(settings, generation)
        self._until, self._max_rate = until, max_rate
        self._began, self.n_read = time.monotonic(), 0
        self.advance: Callable[[ReplayFlow], None] = lambda flow: None

    def poll(self, wait_s: float = POLL_S) -> RawBatch | None:
        """Return what is folded next, None while there is nothing or the rate is reached."""
        self.advance(self)
        if self.done >= self.total:
            if not self.runner.owes_vectors:
                self.stopping.set()
            return None
        if self._max_rate:
            ahead = self.n_read / self._max_rate - (time.monotonic() - self._began)
            most_s = 10 * wait_s
            if ahead > 0 and (self.stopping.wait(min(ahead, most_s)) or ahead > most_s):
                return None
        raw = super().poll(wait_s)
        if raw is not None and self.closed:
            clipped = raw.until(self._until)
            self.n_read += len(clipped)
            return clipped
        self.n_read += 0 if raw is None else len(raw)
        return raw

    @property
    def closed(self) -> bool:
        """Whether the replay is of a closed range: what comes after it is not folded."""
        return self._fixed is not None and self._fixed.until is not None

    @property
    def done(self) -> int:
        """Messages of the range that were folded."""
        start = self._fixed.start if self._fixed else {}
        committed = [lane.positions for lane in self.runner.lanes]
        return sum(
            min(max(min((at.get(stream, 0) for at in committed), default=0), start.get(stream, 0)), end)
            - min(start.get(stream, 0), end)
            for stream, end in self._until.items()
        )

    @property
    def total(self) -> int:
        """Messages of the range."""
        start = self._fixed.start if self._fixed else {}
        return sum(max(end - start.get(stream, 0), 0) for stream, end in self._until.items())


def replay(
    settings: Settings, name: str, first: str, until: str, offsets: list[str], overrides: list[str],
    max_rate: float, driver: str, json: bool,
) -> int:  # fmt: skip
    """Build or go on building the generation; return the exit code."""
    now_ms = time.time_ns() // 1_000_000
    try:
        if driver not in ("loop", "bytewax"):
            raise WrongRange(f"--driver must be loop or bytewax; got {driver!r}")
        if not re.fullmatch(NAME, name):
            raise WrongRange(f"{name!r} is no name of a generation: small letters, digits and dashes")
        changed = parse_overrides(settings, overrides)
        store = open_store(settings, patient=True)
        generation = read_generation(store, name)
        if name == live_generation(store):
            raise WrongRange(f"{name} is the live generation; replay into another one")
        probe = _open_log(settings)
        if generation is None:
            start, end = _range(probe, first, until, offsets, now_ms)
            generation = new_generation(name, changed, now_ms, start, end, erasures_of(probe.end()))
            write_generation(store, generation)
        else:
            _must_be_the_same(generation, changed, overrides)
            if first or offsets:
                generation = _go_on_from(store, generation, _range(probe, first, until, offsets, now_ms))
            err.print(f"going on with generation {name}")
        end = generation.until or probe.end()
        probe.close()
        store.close()
        flow = ReplayFlow(changed, generation, {s: end[s] for s in end}, max_rate)
    except WrongRange as error:
        err.print(str(error), markup=False)
        return WRONG_USAGE
    except (StoreUnavailable, LogUnavailable, RegistryUnavailable) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    stop_on_signals(flow.stopping)
    try:
        seconds = _run(flow, name, driver)
    except (PositionLost, ValueError) as error:
        err.print(str(error), markup=False)
        return FAILED
    finally:
        flow.close()
    finished = flow.done >= flow.total
    figures = {
        "generation": name, "messages": flow.n_read, "seconds": round(seconds, 3),
        "messages_per_s": round(flow.n_read / max(seconds, 1e-9)), "finished": finished,
        "erased_users": len(flow.erased.users),
    }  # fmt: skip
    if json:
        print_json(figures)
    elif finished:
        err.print(f"{name} is built: `headrace diff LIVE {name}` compares, `headrace switch {name}` makes it live")
    else:
        err.print(f"stopped at {flow.done:,} of {flow.total:,}; the same command goes on")
    return OK if finished else FAILED


def _run(flow: ReplayFlow, name: str, driver: str) -> float:
    started = time.perf_counter()
    with progress_bar("messages") as bar:
        task = bar.add_task(f"replay into {name}", total=flow.total, rate=0.0)
        first: list[int] = []

        def advance(at: ReplayFlow) -> None:
            first.append(at.done)
            rate = (at.done - first[0]) / max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=at.done, rate=rate)
            del first[1:]

        flow.advance = advance
        if driver == "bytewax":
            from flows.on_bytewax import run_bytewax
            from flows.parts import OneFlow

            run_bytewax(OneFlow(flow))
        else:
            run_loop(flow)
        flow.runner.drain()
        advance(flow)
    return time.perf_counter() - started


def _open_log(settings: Settings) -> Log:
    from flows.log.open_log import open_log

    return open_log(settings.log_address, config=settings.kafka_config)


def _range(log: Log, first: str, until: str, offsets: list[str], now_ms: int) -> tuple[Positions, Positions | None]:
    """Return (start, closed end or None) of the range; streams outside given offsets are not folded."""
    earliest, end = log.start(), log.end()
    if offsets:
        start, stop = parse_offsets(offsets)
        for stream, at in start.items():
            if stream not in earliest:
                raise WrongRange(f"the log has no {stream}")
            if not earliest[stream] <= at <= stop[stream] <= end[stream]:
                raise WrongRange(f"{stream} holds offsets {earliest[stream]} to {end[stream]}, not {at}-{stop[stream]}")
        return {**end, **start}, {**end, **stop}
    start = log.offsets_at(parse_time(first, now_ms)) if first else earliest
    return start, None if until == "now" else log.offsets_at(parse_time(until, now_ms))


def _go_on_from(store: Store, generation: Generation, wanted: tuple[Positions, Positions | None]) -> Generation:
    """Let a generation go on from a later place, as if what lies between had not been sent, but for erasures."""
    start, until = wanted
    start = dict(start.items() - erasures_of(start).items())
    for prefix in generation.prefixes:
        at = store.positions(prefix)
        behind = [stream for stream, first in start.items() if first < at.get(stream, 0)]
        if behind:
            raise WrongRange(f"{generation.name} has folded {behind[0]} up to offset {at[behind[0]]} already")
        store.commit(prefix, at, {**at, **start}, {})
    extended = generation.model_copy(update={"until": until})
    write_generation(store, extended)
    return extended


def _must_be_the_same(generation: Generation, changed: Settings, overrides: list[str]) -> None:
    given: Mapping[str, Any] = {text.partition("=")[0]: None for text in overrides}
    differing = [name for name in given if generation.fold[name] != getattr(changed, name)]
    if differing:
        raise WrongRange(
            f"generation {generation.name} was begun with other values of {', '.join(differing)}; "
            f"`headrace drop {generation.name}` first, or choose another name"
        )


def command(
    generation: Annotated[str, typer.Argument(help="Name of the generation to build, e.g. g2.")],
    first: Annotated[str, typer.Option("--from", help="Fold events from this time on; default: all.")] = "",
    until: Annotated[str, typer.Option("--to", help="Fold up to this time; now: to the end, and live later.")] = "now",
    offsets: Annotated[list[str], typer.Option(help="TOPIC:PARTITION:FIRST-END instead of times; may repeat.")] = [],  # noqa: B006
    override: Annotated[list[str], typer.Option("--set", help="NAME=VALUE of a fold setting; may repeat.")] = [],  # noqa: B006
    max_rate: Annotated[float, typer.Option(help="Messages a second at most; 0: as fast as it goes.")] = 0,
    driver: Annotated[Literal["loop", "bytewax"], typer.Option(help="What runs the fold.")] = "loop",
    json: Json = False,
) -> None:
    """Fold any part of the log again into a generation beside the live one. Again: it goes on after a stop."""
    raise typer.Exit(replay(read_settings(), generation, first, until, offsets, override, max_rate, driver, json))
