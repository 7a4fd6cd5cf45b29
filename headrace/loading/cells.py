"""Cells become values of events: texts, numbers, stock, category paths.

A cell is whatever a reader found: a text, or a typed value of Parquet, Excel or JSON.
An empty cell is None before it gets here.
"""

import re
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from headrace.loading.errors import BadCell

EMPTY = ("", "null", "NULL", "None", "NaN", "nan", "N/A", "n/a", "\\N")
"""Texts that exports write where there is nothing."""
IN_STOCK = (
    "instock", "true", "yes", "1", "available", "preorder", "backorder", "onbackorder", "limitedavailability",
    "onlineonly", "instoreonly", "presale", "auflager", "lieferbar", "verfügbar", "vorbestellbar", "ja", "enstock",
    "disponible",
)  # fmt: skip
OUT_OF_STOCK = (
    "outofstock", "false", "no", "0", "soldout", "unavailable", "discontinued", "ausverkauft", "nichtlieferbar",
    "nichtverfügbar", "nein", "épuisé", "rupturedestock", "agotado",
)  # fmt: skip
_NUMBER = re.compile(r"[+-]?\d[\d.,'\u2019\s\u00a0\u202f]*(?:[eE][+-]?\d+)?|[+-]?[.,]\d+")


def is_empty(cell: Any) -> bool:
    """Return whether a cell holds nothing."""
    return cell is None or (isinstance(cell, str) and (cell in EMPTY or not cell.strip())) or cell != cell


def text_of(cell: Any) -> str:
    """Return a cell as text: a text as it is, a whole number without a point.

    >>> text_of("007"), text_of(17850.0), text_of(True)
    ('007', '17850', 'true')
    """
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, Decimal) and cell == cell.to_integral_value():
        return str(int(cell))
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    if isinstance(cell, list):
        return ", ".join(text_of(one) for one in cell if not is_empty(one))
    return str(cell)


def decimal_mark(cells: Iterable[Any], separator: str) -> str:
    """Return "," or ".", whichever the numbers of a column use for the fraction.

    "1,234" alone leaves it open: files whose columns are separated by semicolons use the comma.

    >>> decimal_mark(["12,50", "3,00"], ","), decimal_mark(["1,234.50"], ";"), decimal_mark(["1,234"], ",")
    (',', '.', '.')
    """
    for cell in cells:
        if not isinstance(cell, str):
            continue
        comma, point = cell.rfind(","), cell.rfind(".")
        if comma >= 0 and point >= 0:
            return "," if comma > point else "."
        if comma >= 0 and not re.search(r"(?<!\d),|\d,\d{3}(?!\d)", cell):
            return ","
        if point >= 0 and not re.search(r"\d\.\d{3}(?!\d)", cell):
            return "."
        if cell.count(",") > 1:
            return "."
        if cell.count(".") > 1:
            return ","
    return "," if separator == ";" else "."


def number_of(field: str, cell: Any, decimal: str = ".") -> float:
    """Return a number, also of texts with a currency or marks between thousands. Raises BadCell.

    >>> number_of("price", "12,50 EUR", ","), number_of("price", "$1,234.50"), number_of("price", "-3")
    (12.5, 1234.5, -3.0)
    """
    if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool):
        return float(cell)
    text = str(cell)
    if decimal == ".":
        try:
            return float(text)
        except ValueError:
            pass
    found = _NUMBER.findall(text)
    if len(found) == 1 and not re.search(r"\d", text.replace(found[0], "", 1)):
        bare = re.sub(r"['\u2019\s\u00a0\u202f]", "", found[0]).replace("." if decimal == "," else ",", "")
        try:
            number = float(bare.replace(",", ".").rstrip("."))
        except ValueError:
            pass
        else:
            return -number if text.strip().startswith(("(", "-")) and number > 0 else number
    raise BadCell(field, f"is no number; got {text!r:.60}")


def whole_of(field: str, cell: Any, decimal: str = ".") -> int:
    """Return a whole number; what lies behind the point is cut. Raises BadCell."""
    number = number_of(field, cell, decimal)
    if number in (float("inf"), float("-inf")):
        raise BadCell(field, f"is no number; got {cell!r:.60}")
    return int(number)


def stock_of(cell: Any, decimal: str = ".") -> int | None:
    """Return units in stock: of a number, or of a word such as "in stock", which is None (not counted).

    >>> stock_of("out of stock"), stock_of("in_stock"), stock_of("12")
    (0, None, 12)
    """
    word = re.sub(r"[\W_]", "", text_of(cell).lower().rpartition("/")[2])
    if isinstance(cell, bool) or not word.isdigit():
        if word in OUT_OF_STOCK:
            return 0
        if word in IN_STOCK:
            return None
    return max(whole_of("stock", cell, decimal), 0)


def available_of(cell: Any) -> int | None:
    """Return the stock that a word of availability stands for: None where it can be bought, else 0. Raises BadCell."""
    word = re.sub(r"[\W_]", "", text_of(cell).lower().rpartition("/")[2])
    if word in OUT_OF_STOCK:
        return 0
    if word in IN_STOCK:
        return None
    raise BadCell("availability", f"is neither in stock nor out of stock: {cell!r:.60}")


def picture_of(cell: Any) -> str:
    """Return the address of a picture, the first one where there are several.

    >>> picture_of("https://shop/1.jpg, https://shop/2.jpg")
    'https://shop/1.jpg'
    """
    return re.split(r"[,|;]\s*(?=https?://)", text_of(cell), maxsplit=1)[0]


def category_of(cell: Any) -> str:
    """Return a category path joined by "/", the first one where there are several.

    >>> category_of("Home > Women > Dresses, Sale"), category_of("drinks/tea")
    ('Home/Women/Dresses', 'drinks/tea')
    """
    if isinstance(cell, list):
        cell = cell[0] if cell else ""
    text = text_of(cell)
    if ">" not in text and "|" not in text:
        return text
    first = text.split(",")[0] if "," in text and ">" in text else text
    return "/".join(part.strip().replace("/", "-") for part in re.split(r"[>|]", first) if part.strip())
