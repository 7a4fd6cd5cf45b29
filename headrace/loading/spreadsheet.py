"""Excel and OpenDocument sheets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from python_calamine import CalamineError, CalamineWorkbook

from headrace.loading.errors import BadFile
from headrace.loading.source import Row, Source


def read_spreadsheet(path: Path, sheet: str = "") -> Source:
    """Return the rows of a sheet: the named one, else the first that has rows. Raises BadFile.

    A sheet has 1,048,576 rows at most and is held in memory.
    """
    try:
        with path.open("rb") as file:
            book = CalamineWorkbook.from_filelike(file)
            names = book.sheet_names
            if sheet and sheet not in names:
                raise BadFile(f"--sheet {sheet}: {path.name} has the sheets {', '.join(names)}")
            chosen, cells = sheet, list[list[Any]]()
            for name in [sheet] if sheet else names:
                chosen, cells = name, book.get_sheet_by_name(name).to_python(skip_empty_area=False)
                if len(cells) > 1:
                    break
    except (CalamineError, OSError) as error:
        raise BadFile(f"{path.name} cannot be read as a spreadsheet: {error}") from None
    top = next((n for n, row in enumerate(cells) if sum(cell != "" for cell in row) > 1 or len(row) == 1), None)
    if top is None:
        raise BadFile(f"{path.name} cannot be read as a spreadsheet: sheet {chosen!r} is empty")
    header, body = cells[top], cells[top + 1 :]
    columns = tuple(str(cell).strip() or f"column {n}" for n, cell in enumerate(header, 1))
    passed = [0]

    def rows() -> Iterator[Row]:
        for n, row in enumerate(body):
            passed[0] = n
            if any(cell != "" for cell in row):
                yield n + top + 2, dict(zip(columns, row, strict=False))
        passed[0] = len(body)

    details = {"sheet": chosen} if len(names) > 1 else {}
    if len(names) > 1:
        details["other sheets"] = ", ".join(name for name in names if name != chosen)
    return Source("Excel", columns, rows, lambda: passed[0] / max(len(body), 1), details, row_word="row")
