"""Answers as bytes, put together from pieces that most answers share; both ways say what the answer's fields say."""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson

from serving.items import Items, Rules
from serving.proto import headrace_pb2
from serving.requests import Answer

TAG, BATCH_TAG = (
    bytes([message.DESCRIPTOR.fields_by_name[name].number << 3 | 2])  # 2: what follows has a length
    for message, name in ((headrace_pb2.Answer, "items"), (headrace_pb2.BatchAnswer, "answers"))
)
NO_RULES = b',"rules":[],"contributions":[]},'
double = struct.Struct("<d").pack


def answer_json(answer: Answer) -> bytes:
    """Return an answer as JSON."""
    return orjson.dumps(answer, default=json_default)


def json_default(value: Any) -> orjson.Fragment:
    """Tell the JSON encoder how to write the items of an answer: as a list of what they stand for."""
    if not isinstance(value, Items):
        raise TypeError(f"{type(value).__name__} has no JSON")
    if not len(value):
        return orjson.Fragment(b"[]")
    pieces = [NO_RULES] * (4 * len(value))
    pieces[0::4] = value.heads.json(value.rows)
    pieces[1::4] = orjson.dumps(value.scores)[1:-1].split(b",")
    pieces[2::4] = [said.json for said in value.said]
    if value.contributions:
        pieces[3::4] = [_end(*both) for both in zip(value.rules, map(orjson.dumps, value.contributions), strict=True)]
    elif any(value.rules):
        pieces[3::4] = [_end(rules) if rules else NO_RULES for rules in value.rules]
    return orjson.Fragment(b"[%b]" % b"".join(pieces)[:-1])


def _end(rules: Rules, contributions: bytes = b"[]") -> bytes:
    return b',"rules":%b,"contributions":%b},' % (orjson.dumps(rules), contributions)


def answer_message(answer: Answer) -> bytes:
    """Return an answer as an `Answer` message."""
    items = answer.items
    parts: list[bytes] = []
    for k, head in enumerate(items.heads.message(items.rows)):
        body = head + double(items.scores[k]) + items.said[k].message
        if items.rules[k] or items.contributions:
            why = [headrace_pb2.Contribution(**part) for part in items.contributions[k]] if items.contributions else ()
            body += headrace_pb2.Recommendation(rules=items.rules[k], contributions=why).SerializeToString()
        parts += (TAG, _number(len(body)), body)
    rest = headrace_pb2.Answer(
        request_id=answer.request_id, generation=answer.generation, anchor=answer.anchor or "",
        fallback=answer.fallback, milliseconds=answer.milliseconds, placement=answer.placement,
        strategy=answer.strategy, rules_version=answer.rules_version, attribution=answer.attribution,
        next=answer.next or "", left_out=answer.left_out, experiments=answer.experiments,
        rules=[
            headrace_pb2.RuleTrace(rule=trace.rule, action=trace.action, effect=trace.effect, items=trace.items)
            for trace in answer.rules
        ],
    )  # fmt: skip
    parts.append(rest.SerializeToString())  # fields of one message may come in several pieces
    return b"".join(parts)


def batch_message(answers: Sequence[Answer]) -> bytes:
    """Return answers as a `BatchAnswer` message."""
    parts: list[bytes] = []
    for body in map(answer_message, answers):
        parts += (BATCH_TAG, _number(len(body)), body)
    return b"".join(parts)


@lru_cache(1 << 14)
def _number(n: int) -> bytes:
    """Return a length as Protocol Buffers write it: base 128, lowest digit first."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _number(n >> 7)
