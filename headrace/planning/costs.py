"""Measured costs of an event, an answer and a row, and prices: files that one can measure and edit."""

from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MEASURED = Path(__file__).with_name("measured.json")
"""What the benchmarks found on the machine that the file names."""


class BadCosts(Exception):
    """A file of costs or prices cannot be read; the message names it."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ingest(_Given):
    """Of one event; CPU in µs."""

    read_us: float = Field(description="Reading it from the log and decoding it, in every process of the flow")
    fold_us: float = Field(description="Folding and committing it, in the process that has its lane")
    redis_us: float = Field(description="Redis's own")
    log_bytes: float = Field(description="Its size in the log, uncompressed")
    data: str = Field(description="What was measured, and on which machine")


class Serving(_Given):
    """Of one answer; CPU in µs."""

    http_us: float = Field(description="The server's, over HTTP")
    grpc_us: float = Field(description="over gRPC")
    stream_us: float = Field(description="over a gRPC stream")
    batch_us: float = Field(description="in batches over HTTP")
    redis_us: float = Field(description="Redis's own")
    answer_bytes: float = Field(description="Its size")
    data: str = Field(description="What was measured, and on which machine")


class Rows(_Given):
    """Bytes in Redis, memory of programs (docs/sizing.md)."""

    user: float
    vector: float
    purchases: float
    item: float = Field(description="In each lane that saw it")
    product: float
    lane: float = Field(description="Set of event ids")
    server: float = Field(description="Memory of a server without its catalogue")
    server_item: float = Field(description="Memory of a server for an item of its catalogue, and of its index")
    flow: float = Field(description="Memory of a process of the flow without its lanes")
    flow_lane: float = Field(description="Memory of a lane with full caches")


class Training(_Given):
    """Of the nightly job."""

    fixed_s: float
    us_per_interaction: float
    bytes_per_user: float
    bytes_per_item: float
    bytes_per_interaction: float
    program_gib: float
    data: str


class Costs(_Given):
    """Everything that a plan multiplies."""

    ingest: Ingest
    serving: Serving
    rows: Rows
    training: Training


class Prices(_Given):
    """Of a month, in any currency. These are round numbers to begin with: put in those of your provider."""

    core: float = 25.0
    gib_of_memory: float = 3.0
    gib_of_disk: float = 0.1
    gib_of_network: float = 0.01


Given = TypeVar("Given", Costs, Prices)


def read_costs(path: Path | None) -> Costs:
    """Return the costs in a file; those that were measured for the docs without one. Raises BadCosts."""
    return _read(Costs, path or MEASURED)


def read_prices(path: Path | None) -> Prices:
    """Return the prices in a file; those of `Prices` without one. Raises BadCosts."""
    return Prices() if path is None else _read(Prices, path)


def merge_costs(path: Path, part: str, values: dict[str, Any]) -> None:
    """Replace some values of one part of a file of costs, which begins as the measured one. Raises BadCosts."""
    costs = read_costs(path if path.exists() else None).model_dump()
    costs[part] |= values
    path.write_bytes(orjson.dumps(Costs.model_validate(costs).model_dump(), option=orjson.OPT_INDENT_2) + b"\n")


def _read(model: type[Given], path: Path) -> Given:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadCosts(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BadCosts(f"{path}: {f'{place}: ' if place else ''}{first['msg']}") from None
