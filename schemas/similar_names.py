"""Guesses at what a misspelt name was meant to be."""

import difflib
from collections.abc import Iterable


def similar(name: str, names: Iterable[str]) -> str:
    """Return the one of `names` that is most like `name`, whatever its case; empty where none is.

    >>> similar("kaito", ["Acme", "Kaito"]), similar("x", ["Acme"])
    ('Kaito', '')
    """
    of_lower = {one.lower(): one for one in sorted(names, reverse=True)}
    found = difflib.get_close_matches(name.lower(), of_lower, 1, 0.5)
    return of_lower[found[0]] if found else ""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean …?`, or nothing.

    >>> did_you_mean("postion", ["position", "id"])
    '; did you mean position?'
    """
    found = similar(name, names)
    return f"; did you mean {found}?" if found else ""


def allowed(name: str, names: Iterable[str], lead: str = "there are") -> str:
    """Return the end of a sentence about a name that is none of `names`.

    >>> allowed("hom", ["home", "email"]), allowed("x", ["home", "email"])
    ('; did you mean home? There are email, home', '; there are email, home')
    """
    ordered, guess = sorted(names), did_you_mean(name, names)
    return f"{guess} {lead[0].upper()}{lead[1:]} {', '.join(ordered)}" if guess else f"; {lead} {', '.join(ordered)}"
