"""The key of a product message as shops write it: the id itself, in JSON's quotes, or framed Avro."""

import json

from schemas.records import HEADER, KEY, MAGIC, Malformed, read_value
from schemas.registry import SchemaRegistry


def item_of_key(key: bytes, registry: SchemaRegistry) -> str:
    """Return the item id that a key names; raises Malformed, UnknownSchema, UnreadableSchema, RegistryUnavailable.

    A text that is no whole JSON string is an id as it stands, whatever it begins with.
    """
    if len(key) > HEADER and key[0] == MAGIC:
        found = read_value(key, KEY, registry)
        return str(found["item"] if isinstance(found, dict) else found)
    try:
        text = key.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the key is neither UTF-8 nor framed Avro: {key[:40]!r}") from error
    if text[:1] not in ('"', "{", "["):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(found, str):
        raise Malformed(f"the key is JSON, but no string: {text[:80]}")
    return found
