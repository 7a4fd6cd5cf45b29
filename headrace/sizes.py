"""Numbers as people write them: 200k, 10M, 1.5B."""

import re

import typer

FACTORS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}


def parse_size(text: str) -> float:
    """Return a number like 200000, 200k, 10M or 1.5B. Raises BadParameter.

    >>> parse_size("1.5B"), parse_size("200k")
    (1500000000.0, 200000.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", str(text).strip().lower().replace(",", ""))
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r:.40} is no number such as 200k, 10M or 1.5B")
    return float(found[1]) * FACTORS[found[2]]
