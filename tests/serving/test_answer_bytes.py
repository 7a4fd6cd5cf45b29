"""Answers put together from pieces are what the encoders make of their fields."""

from dataclasses import asdict, fields

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import hash_id
from serving.catalogue.catalogue import Catalogue
from serving.proto import headrace_pb2 as pb
from serving.rendering.answer_bytes import answer_json, answer_message, batch_message
from serving.rendering.item_heads import ItemHeads
from serving.rendering.items import Items, RenderedReason
from serving.request.answer import Answer, RuleTrace
from serving.request.product_fields import PRODUCT_FIELDS
from serving.request.reasons import Reason

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
contribution = st.fixed_dictionaries({"kind": text, "item": text, "title": text, "share": st.floats(0, 1)})
CATALOGUE = Catalogue([b"g1:0:"])
IDS = ["tea", 'quo"te', "ünïcode", "x" * 256, "new\nline"]
CATALOGUE.take(IDS, np.array([hash_id(one) for one in IDS], np.uint64), [
    {"title": 7 * one, "price": 4.5, "stock": 3, "brand": one, "attributes": {one: 2 * one}} for one in IDS
])  # fmt: skip
NAMES = [*PRODUCT_FIELDS, *(f"attr.{one}" for one in IDS)]


@st.composite
def answers(draw):
    n = draw(st.integers(0, 4))

    def several(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    said = st.builds(RenderedReason, text, st.builds(Reason, text, st.dictionaries(text, text, max_size=2), text))
    items = Items(
        ItemHeads(CATALOGUE), several(st.integers(0, len(IDS) - 1)),
        several(st.floats(allow_nan=False, allow_infinity=False)),
        several(said), several(st.lists(text, max_size=2).map(tuple)),
        draw(st.just(()) | st.lists(st.sampled_from(NAMES), max_size=4)),
    )  # fmt: skip
    if draw(st.booleans()):
        items.contributions = several(st.lists(contribution, max_size=2))
    trace = st.builds(RuleTrace, text, text, text, st.lists(text, max_size=2))
    return Answer(
        items, draw(text), draw(text), draw(st.none() | text), draw(text), draw(text), draw(text),
        draw(st.integers(0, 2**31)), draw(text), draw(st.none() | text), draw(st.lists(text, max_size=2)),
        draw(st.lists(trace, max_size=2)), draw(st.floats(0, 1e6)),
    )  # fmt: skip


def by_definition(answer):
    rest = {field.name: getattr(answer, field.name) for field in fields(answer) if field.name != "items"}
    return {"items": [asdict(one) for one in answer.items], **rest, "rules": [asdict(trace) for trace in answer.rules]}


def message_by_definition(answer):
    said = by_definition(answer)
    return pb.Answer(**{name: value for name, value in said.items() if value is not None})


@given(answers())
def test_json_is_that_of_the_fields(answer):
    plain = orjson.loads(orjson.dumps(by_definition(answer)))
    for _ in range(2):  # the second time from byte strings that are kept
        assert orjson.loads(answer_json(answer)) == plain
    assert list(orjson.loads(answer_json(answer))) == [field.name for field in fields(answer)]


@given(st.lists(answers(), max_size=3))
def test_messages_are_those_of_the_fields(several):
    expected = [message_by_definition(answer) for answer in several]
    assert [pb.Answer.FromString(answer_message(answer)) for answer in several] == expected
    assert list(pb.BatchAnswer.FromString(batch_message(several)).answers) == expected


def test_a_changed_title_is_in_the_next_answer():
    catalogue = Catalogue([b"g1:0:"])
    hashes = np.array([hash_id("tea")], np.uint64)
    items = Items(ItemHeads(catalogue), [0], [1.0], [RenderedReason("popular", Reason("fallback"))], [()])
    for title in ("Tea", "Green tea"):
        catalogue.take(["tea"], hashes, [{"title": title}])
        answer = Answer(items, "r", "g1", None, "popular")
        assert orjson.loads(answer_json(answer))["items"][0]["title"] == title
        assert pb.Answer.FromString(answer_message(answer)).items[0].title == title
