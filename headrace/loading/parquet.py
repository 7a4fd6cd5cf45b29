"""Parquet, a slice of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from headrace.loading.errors import BadFile
from headrace.loading.json_rows import flat
from headrace.loading.source import Row, Source

SLICE = 100_000


def read_parquet(path: Path) -> Source:
    """Return the rows of a Parquet file; lists and structs are Python's lists and dicts. Raises BadFile."""
    try:
        table = pl.scan_parquet(path, glob=False)
        schema = table.collect_schema()
        n_rows = int(table.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadFile(f"{path.name} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    nested = any(isinstance(kind, pl.Struct) for kind in schema.dtypes())
    columns = tuple(_leaves(dict(schema))) if nested else tuple(schema.names())
    passed = [0]

    def rows() -> Iterator[Row]:
        for first in range(0, n_rows, SLICE):
            try:
                part = table.slice(first, SLICE).collect()
            except (pl.exceptions.PolarsError, OSError) as error:
                raise BadFile(f"{path.name}, row {first + 1}: {str(error).splitlines()[0]}") from None
            passed[0] = first
            for n, row in enumerate(part.iter_rows(named=True), first + 1):
                yield n, flat(row) if nested else row
        passed[0] = n_rows

    return Source("Parquet", columns, rows, lambda: passed[0] / max(n_rows, 1), row_word="row")


def _leaves(kinds: dict[str, pl.DataType], prefix: str = "") -> Iterator[str]:
    """Yield the names of columns, `geo.country` for what lies inside a struct."""
    for name, kind in kinds.items():
        if isinstance(kind, pl.Struct):
            yield from _leaves({one.name: one.dtype for one in kind.fields}, f"{prefix}{name}.")  # type: ignore[misc]
        else:
            yield prefix + name
