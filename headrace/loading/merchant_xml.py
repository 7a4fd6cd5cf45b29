"""Product feeds as XML: RSS 2.0 and Atom, as Google Merchant Center takes them."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from headrace.loading.bytes_of_files import Packed
from headrace.loading.errors import BadFile
from headrace.loading.source import Row, Source

PRODUCTS = ("item", "entry", "product", "offer")
SAMPLED = 200


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _row(element: Element) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for child in element:
        name = _local(child.tag)
        text = (child.text or "").strip() or child.get("href", "")
        if len(child) and not text:
            text = ", ".join(part.strip() for part in child.itertext() if part.strip())
        if text and name not in row:  # the first of several pictures or product types
            row[name] = text
    return {**element.attrib, **row}


def read_feed(packed: Packed, name: str, size: int) -> Source:
    """Return a row for each product of a feed, one at a time. Raises BadFile."""
    opened: list[BinaryIO] = []

    def rows() -> Iterator[Row]:
        content, file = packed.open()
        opened[:] = [file]
        n = 0
        with content:
            try:
                parents: list[Element] = []
                for event, element in iterparse(content, events=("start", "end")):
                    if event == "start":
                        parents.append(element)
                        continue
                    parents.pop()
                    if _local(element.tag) in PRODUCTS:
                        n += 1
                        yield n, _row(element)
                        element.clear()
                        if parents:
                            parents[-1].remove(element)
            except (ParseError, DefusedXmlException) as error:
                raise BadFile(f"{name} cannot be read as XML after product {n}: {error}") from None

    columns: dict[str, None] = {}
    with closing(rows()) as sample:  # type: ignore[type-var]
        for _, row in islice(sample, SAMPLED):
            if isinstance(row, dict):
                columns |= dict.fromkeys(row)
    if not columns:
        raise BadFile(f"{name} cannot be read as a product feed: it has no {', '.join(PRODUCTS)}")

    def done() -> float:
        return min(opened[0].tell() / max(size, 1), 1.0) if opened and not opened[0].closed else 1.0

    return Source("XML feed", tuple(columns), rows, done, dict(packed.details), row_word="product")
