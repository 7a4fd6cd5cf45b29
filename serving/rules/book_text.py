"""A book as YAML or JSON text: its data, and the line of each of its parts."""

import re
from collections.abc import Hashable
from typing import Any, NamedTuple

import yaml

from serving.rules.book_errors import BadBook, BookError, Path, bad_book

MAX_BYTES = 1 << 20
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is built in: ten times as fast."""
ALIASES = re.compile(rb"(?:^|[\s\[{,:-])\*[\w-]", re.MULTILINE)
QUOTES = "a condition that holds quotes, commas or colons stands in single quotes: where: 'under(category, \"toys\")'"


class BookText(NamedTuple):
    """The data of a text, and its syntax tree."""

    data: Any
    root: yaml.Node | None = None

    def line(self, path: Path) -> int:
        """Return the line where a part begins, or the nearest part around it; 0 where there is no text."""
        node, line = self.root, 0
        if node is not None:
            line = node.start_mark.line + 1
        for step in path:
            found = _child(node, step)
            if found is not None:
                line, node = found
        return line


def _child(node: yaml.Node | None, step: int | str) -> tuple[int, yaml.Node] | None:
    """Return the line and the value of an entry of a node, None where it has no such entry."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    return None


def read_text(text: str | bytes) -> BookText:
    """Return the data of a YAML or JSON text. Raises BadBook."""
    if len(text) > MAX_BYTES:
        raise _bad(0, f"is larger than {MAX_BYTES} bytes")
    try:
        if _has_aliases(text):  # a few hundred bytes of them become gigabytes
            raise _bad(0, "YAML aliases (*name) are not taken; write out what they stand for")
        return _compose(text)
    except yaml.MarkedYAMLError as error:
        raise _of_yaml(error, text) from None
    except BadBook:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _bad(0, f"is no YAML or JSON: {error}") from None


def _compose(text: str | bytes) -> BookText:
    loader = LOADER(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return BookText(None)
        _refuse_twice(root)
        return BookText(loader.construct_document(root), root)
    finally:
        loader.dispose()


def _refuse_twice(node: yaml.Node) -> None:
    """Raise BadBook where a mapping has a key twice, of which YAML readers would drop the first."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_twice(child)
    elif isinstance(node, yaml.MappingNode):
        there = dict[Hashable, int]()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in there:
                raise _bad(line, f"`{key.value}` is there twice, first on line {there[key.value]}; keep one")
            if isinstance(key, yaml.ScalarNode):
                there[key.value] = line
            _refuse_twice(value)


def _of_yaml(error: yaml.MarkedYAMLError, text: str | bytes) -> BadBook:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return _bad(0, f"is no YAML: {error}")
    data = text if isinstance(text, str) else text.decode(errors="replace")
    lines = data.splitlines()
    here = lines[mark.line] if mark.line < len(lines) else ""
    if here[: mark.column + 1].endswith("\t"):
        return _bad(mark.line + 1, "YAML is indented with spaces, and this line has a tab")
    what = " ".join(part for part in (error.context, error.problem) if part)
    hint = f"; {QUOTES}" if "{" in here or ":" in here else ""
    return _bad(mark.line + 1, f"is no YAML at column {mark.column + 1}: {what}{hint}")


def _bad(line: int, message: str) -> BadBook:
    return bad_book([BookError(line, "", "book", message)])


def _has_aliases(text: str | bytes) -> bool:
    """Return whether a YAML text repeats parts of itself. Raises YAMLError."""
    data = text.encode() if isinstance(text, str) else text
    if ALIASES.search(data) is None:  # nearly always; conditions multiply by the same sign
        return False
    return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, LOADER))
