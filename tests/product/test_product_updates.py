"""Updates of products over REST, seen by a caller, while the flow dies and starts again."""

import pytest
from helpers.product import Product
from helpers.up import wait_for

TEA = {
    "item": "tea",
    "title": "Green tea",
    "category": "drinks",
    "price": 4.5,
    "stock": 80,
    "attributes": {"organic": "yes"},
}
STEPS = [
    ({"stock": 0}, {"title": "Green tea", "price": 4.5, "stock": 0}),
    ({"price": 4.2, "stock": 7, "category": None}, {"title": "Green tea", "price": 4.2, "stock": 7, "category": ""}),
    ({"attributes": {"organic": None, "origin": "Uji"}}, {"attributes": {"origin": "Uji"}, "stock": 7}),
    ({"replace": True, "title": "Tea"}, {"title": "Tea", "price": None, "stock": None, "attributes": {}}),
]


@pytest.mark.redis
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_product_has_what_its_updates_named_also_when_the_flow_was_killed_between_them(tmp_path):
    with Product(tmp_path, n_lanes=4, lease_s=2, flow_name="one") as shop:

        def has(expected):
            answer = shop.client.get("/v1/items/tea")
            found = answer.json()
            return answer.status_code == 200 and {name: found[name] for name in expected} == expected

        shop.send({"type": "product", **TEA})
        wait_for(lambda: has({"title": "Green tea", "stock": 80, "attributes": {"organic": "yes"}}))
        for change, expected in STEPS:
            shop.flow.process.kill()
            shop.flow.process.wait()
            shop.send({"type": "product", "item": "tea", **change})
            shop.flow = shop.start("flow")
            wait_for(lambda expected=expected: has(expected))
        shop.send({"type": "product_gone", "item": "tea"})
        wait_for(lambda: has({"gone": True}))
        shop.send({"type": "product", "item": "tea", "stock": 3}, {"type": "product", "item": "tea", "title": "Tea"})
        wait_for(lambda: has({"gone": False, "title": "Tea", "stock": 3}))
