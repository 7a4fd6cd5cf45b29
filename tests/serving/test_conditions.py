import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import hash_id
from serving.catalogue.catalogue import Catalogue
from serving.request.condition_compiler import BadExpression
from serving.request.conditions import ItemCondition, RequestCondition

PRODUCTS = [
    {"price": 10.0, "brand": "Acme", "category": "toys/cars", "stock": 3, "attributes": {"colour": "red", "size": "4"}},
    {"price": 25.0, "brand": "Globex", "category": "toys", "stock": 0, "margin": 0.3},
    {"brand": "acme pro", "category": "toyshop", "attributes": {"colour": "blue", "size": "large"}},
    {},
]


def catalogue(products=PRODUCTS):
    found = Catalogue([b"{g1:0}"])
    ids = [f"i{n}" for n in range(len(products))]
    found.take(ids, np.array([hash_id(item) for item in ids], np.uint64), products)
    return found


def passing(source, products=PRODUCTS):
    shop = catalogue(products)
    return np.flatnonzero(ItemCondition(source).mask(shop, len(shop))).tolist()


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("price < 20", [0]),
        ("price != 10", [1]),  # an unknown price is neither
        ("not price < 20", [1, 2, 3]),
        ("10 <= price <= 25", [0, 1]),
        ("price * (1 - 0.5) == 5", [0]),
        ("brand == 'Acme'", [0]),
        ("brand != 'Acme'", [1, 2]),
        ("brand in ['Acme', 'Globex']", [0, 1]),
        ("brand not in ['Acme']", [1, 2]),
        ("stock in [0, 3]", [0, 1]),
        ("under(category, 'toys')", [0, 1]),
        ("contains(brand, 'ACME')", [0, 2]),
        ("startswith(brand, 'glo')", [1]),
        ("attr.colour == 'red'", [0]),
        ("attr.unheard == 'x'", []),
        ("number(attr.size) > 3", [0]),
        ("margin > 0.2 or attr.colour == 'blue'", [1, 2]),
        ("price / 0 > 1", [0, 1]),
        ("True", [0, 1, 2, 3]),
        ("price < 18446744073709551616", [0, 1]),
        ("price < -18446744073709551616 or price > 1e308", []),
        ("price in [10, 18446744073709551616]", [0]),
        ("price * 1e308 * 1e308 > 1", [0, 1]),
        ("True and price < 20", [0]),
        ("1 < 2 < price", [0, 1]),
    ],
)
def test_what_a_condition_over_items_means(source, rows):
    assert passing(source) == rows


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("colour == 'red'", "'colour' is not known; there are attr.NAME, brand, category"),
        ("price", "is a number, not a condition"),
        ("price < 'a'", "price is a number, which has no quotes"),
        ("brand < price", "must be a text in quotes"),
        ("price and True", "at 1: is a number, but a truth value is needed"),
        ("__import__('os')", "there are under"),
        ("price.real > 1", "only attr.NAME"),
        ("(lambda: 1)() > 0", "there are under"),
        ("[x for x in brand]", "ListComp cannot be used here"),
        ("price ** 9 > 1", "only + - * /"),
        ("brand in 'Acme'", "must be a list"),
        ("brand in [1]", "must list texts"),
        ("price <", "is no expression"),
        ("(" * 400 + "1" + ")" * 400, "is no expression"),
        ("1" + "+1" * 600 + ">0", "longer than"),
        ("new_user", "'new_user' is not known"),
        ("price < " + "9" * 400, "at 9: the number is too large"),
        ("price < 1e999", "too large"),
        ("price in [1, 1" + "0" * 400 + "]", "too large"),
        ("number('attr.size') > 40", "number(attr.NAME); got 'attr.size'"),
        ("not " * 70 + "True", "nested more than 64 levels deep"),
        ("brand == '\\ud83d'", "is not valid Unicode"),
        ("brand == '\ud83d'", "is not valid Unicode"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(source, says):
    with pytest.raises(BadExpression) as error:
        ItemCondition(source)
    assert says in str(error.value)


@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused(source):
    try:
        condition = ItemCondition(source)
    except BadExpression:
        return
    assert condition.mask(catalogue(), len(PRODUCTS)).shape == (len(PRODUCTS),)


prices = st.one_of(st.none(), st.floats(0, 100))
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, "==": operator.eq, "!=": operator.ne}


@given(
    st.lists(st.tuples(prices, st.sampled_from(["", "a", "b"])), min_size=1, max_size=20),
    st.sampled_from(sorted(COMPARISONS)),
    st.floats(0, 100),
    st.sampled_from(["and", "or"]),
    st.booleans(),
)
def test_masks_are_what_one_item_at_a_time_gives(items, sign, bound, word, negated):
    products = [{"price": price, "brand": brand} for price, brand in items]
    source = f"{'not ' if negated else ''}(price {sign} {bound!r} {word} brand == 'a')"

    def passes(price, brand):
        cheap = price is not None and not math.isnan(price) and COMPARISONS[sign](price, bound)
        both = (cheap and brand == "a") if word == "and" else (cheap or brand == "a")
        return both != negated

    assert passing(source, products) == [n for n, item in enumerate(items) if passes(*item)]


class Facts:
    def number(self, name):
        return {"new_user": True, "hour": 14, "n_events": 0}[name]

    def text(self, name):
        return {"country": "DE"}.get(name, "")

    def likes(self, name):
        return name == "Acme"


@pytest.mark.parametrize(
    ("source", "holds"),
    [("new_user", True), ("country == 'DE' and hour >= 12", True), ("country in ['FR']", False),
     ("likes('Acme')", True), ("not likes('Globex') and n_events == 0", True), ("user == ''", False)],
)  # fmt: skip
def test_what_a_condition_over_a_request_means(source, holds):
    assert RequestCondition(source).holds(Facts()) is holds
    with pytest.raises(BadExpression):
        RequestCondition("price < 3")
