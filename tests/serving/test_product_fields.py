"""Answers carry product fields: what the catalogue has, in the order of the names, by request or by placement."""

import orjson
import pytest
from helpers.recommenders import ask, recommender_of
from helpers.serving_rows import NOW, product, shop_events
from pydantic import ValidationError

from serving.engine.recommender import BadRequest
from serving.http.rules_api import trial
from serving.rendering.answer_bytes import answer_json
from serving.request.product_fields import PRODUCT_FIELDS
from serving.request.requests import RecommendRequest, first_error

URL = "https://shop.example/cup"
CUP = {"price": 9.5, "brand": "Clay", "category": "kitchen", "seller": "Kim", "stock": 3, "margin": 0.4,
       "image_url": f"{URL}.jpg", "attributes": {"url": URL, "size": "L"}}  # fmt: skip
HAS = {"title": "Cup", "price": 9.5, "image": f"{URL}.jpg", "url": URL, "brand": "Clay", "category": "kitchen",
       "seller": "Kim", "stock": 3}  # fmt: skip
ASKED = {"user": "ann", "count": 1, "repeat": "exclude"}


@pytest.fixture
def shop():
    return recommender_of(shop_events(), [product("cup", "Cup", **CUP)])[0]


def fields_of(answer):
    return [one.get("fields") for one in orjson.loads(answer_json(answer))["items"]]


@pytest.mark.parametrize("name", [*PRODUCT_FIELDS, "attr.size", "attr.url", "attr.none"])
def test_each_field_is_what_the_catalogue_has(shop, name):
    assert fields_of(ask(shop, **ASKED, fields=[name])) == [
        {name: {**HAS, "attr.size": "L", "attr.url": URL}.get(name)}
    ]


def test_fields_stand_in_the_order_of_their_names_once_each_and_are_null_where_there_is_nothing(shop):
    (fields,) = fields_of(ask(shop, **ASKED, fields=["stock", "brand", "attr.x", "stock"]))
    assert list(fields.items()) == [("stock", 3), ("brand", "Clay"), ("attr.x", None)]
    (of_unknown,) = fields_of(ask(shop, user="v0", count=1, fields=PRODUCT_FIELDS, filters=None, exclude=["cup"]))
    assert of_unknown == dict.fromkeys(PRODUCT_FIELDS)


def test_without_fields_an_answer_is_what_it_was(shop):
    plain, one = ask(shop, **ASKED), ask(shop, **ASKED, fields=["price"])
    assert plain.items.to_json() == one.items.to_json().replace(b',"fields":{"price":9.5}', b"")
    assert b'"fields"' not in answer_json(plain)
    assert ask(shop, **ASKED, fields=[]).items.to_json() == plain.items.to_json()
    assert one.items.to_message().find(plain.items.to_message()[3:]) > 0


def test_only_those_lists_of_a_batch_have_fields_whose_requests_name_them(shop):
    several = [None, ["price"], [], ["brand", "price"]]
    answers = shop.recommend([RecommendRequest(**ASKED, fields=one) for one in several], NOW)
    assert [fields_of(one) for one in answers] == [[None], [{"price": 9.5}], [None], [{"brand": "Clay", "price": 9.5}]]
    for one in answers:
        assert one.items.to_json() == one.items.alone.to_json()
        assert one.items.to_message() == one.items.alone.to_message()


def test_a_placement_names_fields_for_requests_that_name_none(shop):
    book = trial({"placements": {"home": {"fields": ["price", "url"]}, "other": {}}})
    asked = [{}, {"placement": "other"}, {"fields": ["brand"]}, {"fields": []}, {"explain": True}, {"explore": 1}]
    answers = shop.recommend([RecommendRequest(**{**ASKED, "count": 2, **one}) for one in asked], NOW, book)
    names = [[list(fields) if fields else None for fields in fields_of(one)] for one in answers]
    both = [["price", "url"]] * 2
    assert names == [both, [None] * 2, [["brand"]] * 2, [None] * 2, both, both]


def test_kept_answers_and_fields_follow_the_catalogue(shop):
    book = trial({"placements": {"home": {"fields": ["price"], "cache_s": 60}}})
    for price in (9.5, 7.0):
        for _ in range(2):
            (answer,) = shop.recommend([RecommendRequest(**ASKED)], NOW, book)
            assert fields_of(answer) == [{"price": price}]
            assert b"price" in answer.items.to_message()
        catalogue = shop.shop.catalogue
        catalogue.take(["cup"], catalogue.hashes()[[catalogue.ids.index("cup")]], [{"title": "Cup", "price": 7.0}])


def test_fields_of_many_items_are_kept_up_to_a_bound(shop, monkeypatch):
    monkeypatch.setattr("serving.rendering.field_cache.MAX_KEPT", 3)
    for n in range(20):
        (fields,) = fields_of(ask(shop, **ASKED, fields=[f"attr.{n}", "price"]))
        assert fields == {f"attr.{n}": None, "price": 9.5}
    assert len(shop.shop.heads.fields) <= 4


@pytest.mark.parametrize(("name", "said"), [
    ("prise", "there is no product field 'prise'; did you mean price? There are attr.NAME, brand"),
    ("image_url", "there is no product field 'image_url'; did you mean image?"),
    ("margin", "there is no product field 'margin'"), ("attr.", "there is no product field 'attr.'"),
])  # fmt: skip
def test_an_unknown_field_is_refused_with_a_guess(shop, name, said):
    with pytest.raises(ValidationError) as wrong:
        RecommendRequest(fields=["title", name])
    field, message = first_error(wrong.value)
    assert (field, message[: len(said)]) == ("fields.1", said)
    for call in (
        lambda: shop.similar_items("tea", 3, NOW, "en", [name]),
        lambda: shop.popular("all", "", 3, NOW, "en", [name]),
    ):
        with pytest.raises(BadRequest, match=r"^fields\.0: there is no product field"):
            call()


@pytest.mark.parametrize("fields", [["x" * 257], [""], ["price"] * 51])
def test_fields_are_bounded(fields):
    with pytest.raises(ValidationError):
        RecommendRequest(fields=fields)
