"""Names of countries become the codes that requests use."""

from functools import lru_cache

import pycountry

OLD_NAMES = {"eire": "IE", "rsa": "ZA", "uk": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "usa": "US",
             "russia": "RU", "south korea": "KR", "channel islands": "JE", "korea": "KR", "ivory coast": "CI",
             "holland": "NL", "deutschland": "DE", "österreich": "AT", "schweiz": "CH"}  # fmt: skip
"""Names that exports write and ISO 3166 does not have."""


@lru_cache(4096)
def code_of(name: str) -> str:
    """Return the ISO 3166 code of a country's name; a text that is none stays as it is.

    >>> code_of("United Kingdom"), code_of("de"), code_of("Unspecified")
    ('GB', 'DE', 'Unspecified')
    """
    if name.lower() in OLD_NAMES:
        return OLD_NAMES[name.lower()]
    try:
        return str(pycountry.countries.lookup(name).alpha_2)
    except LookupError:
        return name
