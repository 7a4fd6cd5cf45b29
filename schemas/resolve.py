"""A shop's own schema resolved against ours: what each of its fields becomes, found out once for a schema.

The rules are Avro's (Apache Avro 1.12, "Schema Resolution"): fields are matched by name or
alias in any order, what we do not know is skipped, what is missing takes our default, numbers
widen, bytes and strings are read as each other, and unions match branch by branch. Names of
records do not matter, since the topic says what a message is. Where a shop means the same by
another type, it is converted:

| ours | also read from |
| --- | --- |
| `ts_ms` | `timestamp-millis`, `-micros`, `-nanos`, and the same of `local-timestamp` (as UTC) |
| a number with a fraction | `decimal`, as bytes or fixed |
| a text | an enum; a `uuid`, as string or fixed |

The result is a schema that fastavro reads the writer's bytes with and that gives our record: the
writer's types in the writer's order under our names, with the conversions as logical types of
our own. `schemas.decoder_program` compiles the same tree for the kernel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import fastavro.read
from fastavro import parse_schema

Tree = dict[str, Any]

RECORD, TEXT, ID, NUMBER, DECIMAL, MOMENT, NULL, MISMATCH = (
    f"headrace-{name}" for name in ("record", "text", "uuid", "number", "decimal", "moment", "null", "mismatch")
)
"""Our logical types."""

IGNORED = "_"
"""What the names of fields begin with that are none of ours."""

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
PER_MS = {f"{local}timestamp-{unit}": n for local in ("", "local-")
          for unit, n in (("millis", 1), ("micros", 1000), ("nanos", 1_000_000))}  # fmt: skip
OTHER_TIMES = ("date", "time-millis", "time-micros")
TIME_FIELD = "ts_ms"
MOST_DIGITS = 300
UUID_BYTES = 16


class UnreadableSchema(Exception):
    """A schema, or a message's branch of a union, that cannot become ours; names the field and both types."""


class NullValue(ValueError):
    """A null where ours has to have a value."""


@dataclass(frozen=True, eq=False)
class Resolved:
    """How to read a writer's messages as records of a topic."""

    topic: str
    tree: Any
    """The schema to read with, not yet parsed by fastavro."""
    parsed: Any
    recursive: bool
    """Whether a type that is skipped contains itself, so that a message can be nested without bound."""


def resolve(writer: Any, reader: Mapping[str, Any], topic: str, named: Mapping[str, Any] | None = None) -> Resolved:
    """Return how messages of the `writer` schema are read as `reader`, ours; raises UnreadableSchema.

    `named`: schemas that the writer's refers to by name and does not hold.
    """
    try:
        resolver = _Resolver()
        for other in (named or {}).values():
            resolver.collect(other, "")
        resolver.collect(writer, "")
        tree = resolver.matched("", writer, "", reader)
        return Resolved(topic, tree, parse_schema(tree), resolver.recursive)
    except UnreadableSchema:
        raise
    except Exception as error:  # whatever a schema leads to that is none
        raise UnreadableSchema(f"not an Avro schema: {error!r}"[:300]) from error


def type_name(schema: Any) -> str:
    """Return what a person would call a type.

    >>> type_name(["null", {"type": "long", "logicalType": "timestamp-micros"}])
    'null or long (timestamp-micros)'
    """
    if isinstance(schema, list):
        return " or ".join(type_name(branch) for branch in schema)
    if not isinstance(schema, Mapping):
        return str(schema)
    if not isinstance(schema.get("type"), str):
        return type_name(schema.get("type"))
    name = f"{schema['type']} {schema['name']}" if "name" in schema else str(schema["type"])
    if schema["type"] in ("array", "map"):
        name += f" of {type_name(schema.get('items', schema.get('values')))}"
    return f"{name} ({schema['logicalType']})" if "logicalType" in schema else name


class _Resolver:
    """One writer's schema being resolved."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[Tree, str]] = {}
        self._skipped: dict[str, str] = {}
        self._open: set[str] = set()
        self._n = 0
        self.recursive = False

    def collect(self, schema: Any, space: str) -> None:
        """Remember the types that a schema defines, by full name."""
        if isinstance(schema, list):
            for branch in schema:
                self.collect(branch, space)
        if not isinstance(schema, Mapping):
            return
        if "name" in schema and schema.get("type") in ("record", "error", "enum", "fixed"):
            full = _full_name(schema, space)
            space = full.rpartition(".")[0]
            self._named[full] = dict(schema), space
        for part in (schema.get("type"), schema.get("items"), schema.get("values")):
            if not isinstance(part, str):
                self.collect(part, space)
        for field in schema.get("fields", ()):
            self.collect(field["type"], space)

    def _definition(self, schema: Any, space: str) -> tuple[Tree, str]:
        """Return what a type is, with its kind as `type`, and the namespace of the names in it."""
        if isinstance(schema, list):
            return {"type": "union", "branches": schema}, space
        kind = schema if isinstance(schema, str) else schema["type"]
        if not isinstance(kind, str):
            return self._definition(kind, space)
        if kind in PRIMITIVES:
            return ({"type": kind} if isinstance(schema, str) else dict(schema)), space
        if kind in ("array", "map"):
            return dict(schema), space
        if kind in ("record", "error", "enum", "fixed"):
            return self._named[_full_name(schema, space)]
        for full in (kind if "." in kind or not space else f"{space}.{kind}", kind):
            if full in self._named:
                return self._named[full]
        raise UnreadableSchema(f"the type {kind!r} is not defined")

    def matched(self, path: str, writer: Any, space: str, reader: Any) -> Any:
        """Return the tree that reads `writer` as `reader`; raises UnreadableSchema."""
        found, space = self._definition(writer, space)
        if found["type"] == "union":
            return self._union(path, found["branches"], space, reader)
        tree = self._branch(path, found, space, reader)
        if tree is None:
            raise UnreadableSchema(_mismatch(path, found, reader))
        return tree

    def _union(self, path: str, branches: list[Any], space: str, reader: Any) -> list[Any]:
        trees, wrong, n_read = list[Any](), list[str](), 0
        for branch in branches:
            found, inner = self._definition(branch, space)
            try:
                tree = self._branch(path, found, inner, reader)
                detail = _mismatch(path, found, reader)
            except UnreadableSchema as error:
                tree, detail = None, str(error)
            n_read += tree is not None
            if tree is None and found["type"] == "null":
                wrong.append(detail)
                tree = {"type": "null", "logicalType": NULL, "path": path}
            elif tree is None:
                wrong.append(detail)
                tree = {**self._fresh_skipped(found, inner), "logicalType": MISMATCH, "detail": detail}
            trees.append(tree)
        if not n_read:
            raise UnreadableSchema(wrong[-1] if wrong else f"field {path}: an empty union")
        return trees

    def _branch(self, path: str, writer: Tree, space: str, reader: Any) -> Any:
        """Return the tree for the first of the reader's branches that a type can be read as, else None."""
        for one in reader if isinstance(reader, list) else [reader]:
            tree = self._one(path, writer, space, one)
            if tree is not None:
                return tree
        return None

    def _one(self, path: str, writer: Tree, space: str, reader: Any) -> Any:
        kind, ours = writer["type"], reader if isinstance(reader, str) else reader["type"]
        if ours == "null":
            return {"type": "null"} if kind == "null" else None
        if ours == "string":
            return self._text(writer)
        if ours in ("int", "long"):
            return _whole(writer, ours, path.rpartition(".")[2] == TIME_FIELD)
        if ours == "double":
            return self._fraction(writer)
        if ours == kind == "map":
            return {"type": "map", "values": self.matched(f"{path} values", writer["values"], space, reader["values"])}
        if ours == kind == "array":
            return {"type": "array", "items": self.matched(path, writer["items"], space, reader["items"])}
        if ours == "record" and kind in ("record", "error"):
            return self._record(path, writer, space, reader)
        return None

    def _text(self, writer: Tree) -> Tree | None:
        kind, logical = writer["type"], writer.get("logicalType")
        if kind == "string":
            return {"type": "string"}
        if kind == "bytes" and logical not in ("decimal", "big-decimal"):
            return {"type": "bytes", "logicalType": TEXT}
        if kind == "enum":
            return {"type": "enum", "name": self._fresh(), "symbols": list(writer["symbols"])}
        if kind == "fixed" and logical == "uuid" and writer["size"] == UUID_BYTES:
            return {"type": "fixed", "name": self._fresh(), "size": UUID_BYTES, "logicalType": ID}
        return None

    def _fraction(self, writer: Tree) -> Tree | None:
        kind, logical = writer["type"], writer.get("logicalType")
        if kind in ("int", "long") and logical not in PER_MS and logical not in OTHER_TIMES:
            return {"type": kind, "logicalType": NUMBER}
        if kind in ("float", "double"):
            return {"type": kind}
        scale = writer.get("scale", 0)
        if kind in ("bytes", "fixed") and logical == "decimal" and type(scale) is int and 0 <= scale <= MOST_DIGITS:
            own = {"name": self._fresh(), "size": writer["size"]} if kind == "fixed" else {}
            return {"type": kind, **own, "logicalType": DECIMAL, "scale": scale}
        return None

    def _record(self, path: str, writer: Tree, space: str, reader: Mapping[str, Any]) -> Tree:
        ours = {field["name"]: field for field in reader["fields"]}
        names = _our_names(writer["fields"], ours)
        prefix = f"{path}." if path else ""
        defaults = {}
        for name, field in ours.items():
            if name not in names.values():
                if "default" not in field:
                    raise UnreadableSchema(
                        f"field {prefix}{name}: missing, and ours, {type_name(field['type'])}, has no default"
                    )
                defaults[name] = field["default"]
        fields = []
        for n, field in enumerate(writer["fields"]):
            if n in names:
                tree = self.matched(prefix + names[n], field["type"], space, ours[names[n]]["type"])
                fields.append({"name": names[n], "type": tree})
            else:
                fields.append({"name": f"{IGNORED}{n}", "type": self._skip(field["type"], space)})
        tree = {"type": "record", "name": self._fresh(), "fields": fields}
        if defaults or len(names) < len(fields):
            tree |= {"logicalType": RECORD, "defaults": defaults}
        return tree

    def _skip(self, schema: Any, space: str) -> Any:
        """Return the tree that reads past a type, whatever it is."""
        found, space = self._definition(schema, space)
        if found["type"] == "union":
            return [self._skip(branch, space) for branch in found["branches"]]
        if "name" not in found:
            return self._fresh_skipped(found, space)
        full = _full_name(found, space)
        self.recursive |= full in self._open
        if full not in self._skipped:
            self._skipped[full] = f"s{len(self._skipped)}"
            self._open.add(full)
            tree = self._fresh_skipped(found, space, self._skipped[full])
            self._open.discard(full)
            return tree
        return self._skipped[full]

    def _fresh_skipped(self, found: Tree, space: str, name: str = "") -> Tree:
        kind = found["type"]
        if kind in PRIMITIVES:
            return {"type": kind}
        if kind == "array":
            if self._is_empty(found["items"], space):
                raise UnreadableSchema(f"an array of {type_name(found['items'])}, which takes no bytes, has no bound")
            return {"type": kind, "items": self._skip(found["items"], space)}
        if kind == "map":
            return {"type": kind, "values": self._skip(found["values"], space)}
        tree = {"type": "record" if kind == "error" else kind, "name": name or self._fresh()}
        if kind == "enum":
            return tree | {"symbols": list(found["symbols"])}
        if kind == "fixed":
            return tree | {"size": found["size"]}
        fields = [
            {"name": f"{IGNORED}{n}", "type": self._skip(field["type"], space)}
            for n, field in enumerate(found["fields"])
        ]
        return tree | {"fields": fields}

    def _is_empty(self, schema: Any, space: str) -> bool:
        """Return whether values of a type take no bytes: a message of ten could hold any number of them."""
        found, space = self._definition(schema, space)
        if found["type"] in ("record", "error") and _full_name(found, space) not in self._open:
            return all(self._is_empty(field["type"], space) for field in found["fields"])
        return found["type"] == "null" or (found["type"] == "fixed" and not found["size"])

    def _fresh(self) -> str:
        self._n += 1
        return f"n{self._n}"


def _full_name(schema: Mapping[str, Any], space: str) -> str:
    name, space = schema["name"], schema.get("namespace", space)
    return name if "." in name or not space else f"{space}.{name}"


def _our_names(fields: list[Any], ours: Mapping[str, Any]) -> dict[int, str]:
    """Return which of our fields each of the writer's is, by place: by its name, our alias, or its own."""
    names = {n: field["name"] for n, field in enumerate(fields) if field["name"] in ours}
    for field in ours.values():
        for n, theirs in enumerate(fields):
            taken = n in names or field["name"] in names.values()
            if not taken and (theirs["name"] in field.get("aliases", ()) or field["name"] in theirs.get("aliases", ())):
                names[n] = field["name"]
    return names


def _whole(writer: Tree, ours: str, is_time: bool) -> Tree | None:
    kind, logical = writer["type"], writer.get("logicalType")
    if kind == "long" and is_time and logical in PER_MS:
        per_ms = PER_MS[logical]
        return {"type": "long", "logicalType": MOMENT, "per_ms": per_ms} if per_ms > 1 else {"type": "long"}
    if kind not in ("int", "long") or (kind, ours) == ("long", "int"):
        return None
    # On the wrong type a logical type means nothing, says Avro.
    means = logical in ("date", "time-millis") if kind == "int" else logical in PER_MS or logical == "time-micros"
    return None if means else {"type": kind}


def _mismatch(path: str, writer: Any, reader: Any) -> str:
    where = f"field {path}" if path else "the message"
    return f"{where}: ours, {type_name(reader)}, cannot be read from {type_name(writer)}"


def _read_record(data: dict[str, Any], schema: Mapping[str, Any], _: Any = None) -> dict[str, Any]:
    own = {name: value for name, value in data.items() if not name.startswith(IGNORED)}
    return {**schema["defaults"], **own}


def _read_null(data: None, schema: Mapping[str, Any], _: Any = None) -> None:
    raise NullValue(f"{schema['path']} is null")


def _read_mismatch(data: Any, schema: Mapping[str, Any], _: Any = None) -> None:
    raise UnreadableSchema(schema["detail"])


def _add_readers() -> None:
    """Make fastavro know our logical types."""
    readers: dict[str, Any] = {
        f"record-{RECORD}": _read_record,
        f"bytes-{TEXT}": lambda data, schema, _=None: data.decode(),
        f"fixed-{ID}": lambda data, schema, _=None: str(UUID(bytes=data)),
        f"long-{MOMENT}": lambda data, schema, _=None: data // schema["per_ms"],
        f"null-{NULL}": _read_null,
    }
    for kind in ("int", "long"):
        readers[f"{kind}-{NUMBER}"] = lambda data, schema, _=None: float(data)
    for kind in ("bytes", "fixed"):
        readers[f"{kind}-{DECIMAL}"] = lambda data, schema, _=None: (
            int.from_bytes(data, "big", signed=True) / 10 ** schema["scale"]
        )
    for kind in (*PRIMITIVES, "record", "enum", "fixed", "array", "map"):
        readers[f"{kind}-{MISMATCH}"] = _read_mismatch
    fastavro.read.LOGICAL_READERS.update(readers)


_add_readers()
