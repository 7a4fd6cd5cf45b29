"""What `headrace evaluate` measures on: a pair of files, a file that is split by time, or the log of a running shop."""

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from batch.evaluation.groups import Categories
from batch.evaluation.tables import WrongTable, has_columns, read_events, read_pairs, split_baskets, split_by_time
from batch.training.log_events import Reader, read_log_events
from batch.training.simulated_shop import Pairs
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.settings import limits_of
from headrace.console import reading_bar
from headrace.loading.as_table import write_table
from headrace.loading.errors import BadFile
from headrace.loading.plan import Choices
from headrace.settings import Settings
from schemas.events import Columns


class Measured(NamedTuple):
    """What an evaluation is made on."""

    learned: Columns
    asked: Pairs
    categories: Categories
    source: str
    """The files, or the address of the log."""


@dataclass(frozen=True)
class Input:
    """Where events and predictions come from, and how one table becomes both."""

    train: Path | None = None
    pairs: Path | None = None
    events: Path | None = None
    live: Settings | None = None
    """Settings of the shop whose log is read."""
    share: float = 0.8
    """Of the sessions, learned; where one table is split."""
    what: Literal["item", "basket"] = "item"
    mapped: Choices | None = None
    """How to read `events`; None: by its columns, or as `headrace load` guesses them."""

    def read(self, session_gap_ms: int) -> Measured:
        """Return events to fold and predictions to make. Raises WrongTable, LogUnavailable, PositionLost."""
        ways = [self.train is not None or self.pairs is not None, self.events is not None, self.live is not None]
        if sum(ways) != 1:
            raise WrongTable("give --live, or --events FILE, or --train FILE and --pairs FILE")
        if self.mapped is not None and self.events is None:
            raise WrongTable("--map, --kind, --kinds and --preset say how to read the file of --events")
        if ways[0]:
            if self.train is None or self.pairs is None:
                raise WrongTable("--train and --pairs need each other")
            learned, categories = read_events(self.train)
            return Measured(learned, read_pairs(self.pairs), categories, f"{self.train}, {self.pairs}")
        every, categories, source = self._from_log(self.live) if self.live else self._from_file(self.events)
        split = split_by_time if self.what == "item" else split_baskets
        learned, asked = split(every, self.share, session_gap_ms)
        if not len(asked.target):
            raise WrongTable(f"{source}: nothing is left to predict after {len(every):,} events are split by time; "
                             f"several visitors with several events each are needed")  # fmt: skip
        return Measured(learned, asked, categories, source)

    def _from_log(self, settings: Settings) -> tuple[Columns, Categories, str]:
        kind, _, path = settings.log_address.partition(":")
        if kind == "sqlite" and not Path(path).exists():
            raise WrongTable(f"there is no log at {path}: go to the folder of the running `headrace up`, or set "
                             f"HEADRACE_DATA_DIR or HEADRACE_LOG_URL")  # fmt: skip
        with closing(open_log(settings.log_address, config=settings.kafka_config)) as log:
            start, end = log.start(), log.end()
            with reading_bar(sum(last - start.get(stream, 0) for stream, last in end.items())) as advance:
                reader = Reader(
                    open_registry(settings), time.time_ns() // 1_000_000, limits_of(settings),
                    settings.connect_timeout_s, advance,
                )  # fmt: skip
                found = read_log_events(log, reader)
        if not len(found.events):
            raise WrongTable(f"{settings.log_address} holds no events with items")
        named = {item: category for item, category in found.categories.items() if category}
        return found.events[found.events["ts_ms"].argsort(kind="stable")], named, settings.log_address

    def _from_file(self, file: Path | None) -> tuple[Columns, Categories, str]:
        assert file is not None
        by_session = self.what == "item"
        if self.mapped is None and has_columns(file):
            return *read_events(file, by_session), str(file)
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "events.parquet"
            try:
                write_table(file, self.mapped or Choices(), table)
            except BadFile as error:
                raise WrongTable(str(error)) from None
            return *read_events(table, by_session), str(file)
