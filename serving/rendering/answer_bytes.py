"""Answers as JSON and as messages, put together from byte strings that most answers share."""

from collections.abc import Sequence
from typing import Any

import orjson

from schemas.varint import varint
from serving.proto import headrace_pb2
from serving.rendering.items import RenderedItems
from serving.request.answer import Answer, ItemList

BATCH_TAG = bytes([headrace_pb2.BatchAnswer.DESCRIPTOR.fields_by_name["answers"].number << 3 | 2])


def _fields(answer: Answer) -> dict[str, Any]:
    # The encoder's own way through a dataclass takes twice as long. (A test compares names and values of all fields.)
    return {
        "items": orjson.Fragment(_rendered(answer.items).to_json()), "request_id": answer.request_id,
        "generation": answer.generation, "anchor": answer.anchor, "fallback": answer.fallback,
        "placement": answer.placement, "strategy": answer.strategy, "rules_version": answer.rules_version,
        "attribution": answer.attribution, "next_cursor": answer.next_cursor, "skipped_sources": answer.skipped_sources,
        "rules": answer.rules, "milliseconds": answer.milliseconds, "experiments": answer.experiments,
    }  # fmt: skip


def _rendered(items: ItemList) -> RenderedItems:
    assert isinstance(items, RenderedItems), "the recommender makes no others"
    return items


def answer_json(answer: Answer) -> bytes:
    """Return an answer as JSON."""
    return orjson.dumps(_fields(answer))


def batch_json(answers: Sequence[Answer]) -> bytes:
    """Return answers as the JSON of a batch."""
    return orjson.dumps({"answers": [_fields(answer) for answer in answers]})


def json_default(value: Any) -> orjson.Fragment:
    """Tell the JSON encoder how to write the items of an answer: as a list of what they stand for."""
    if not isinstance(value, RenderedItems):
        raise TypeError(f"{type(value).__name__} has no JSON")
    return orjson.Fragment(value.to_json())


def answer_message(answer: Answer) -> bytes:
    """Return an answer as an `Answer` message."""
    rest = headrace_pb2.Answer(
        request_id=answer.request_id, generation=answer.generation, anchor=answer.anchor or "",
        fallback=answer.fallback, milliseconds=answer.milliseconds, placement=answer.placement,
        strategy=answer.strategy, rules_version=answer.rules_version, attribution=answer.attribution,
        next_cursor=answer.next_cursor or "", skipped_sources=answer.skipped_sources, experiments=answer.experiments,
        rules=[
            headrace_pb2.RuleTrace(rule=trace.rule, action=trace.action, effect=trace.effect, items=trace.items)
            for trace in answer.rules
        ],
    )  # fmt: skip
    return _rendered(answer.items).to_message() + bytes(rest.SerializeToString())  # fields may come in several pieces


def batch_message(answers: Sequence[Answer]) -> bytes:
    """Return answers as a `BatchAnswer` message."""
    parts: list[bytes] = []
    for body in map(answer_message, answers):
        parts += (BATCH_TAG, varint(len(body)), body)
    return b"".join(parts)
