import pytest
from helpers.product import Product


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The product with its shop, one for all tests of this folder; what they add has names of its own."""
    with Product(tmp_path_factory.mktemp("product"), impressions_share=1, store_timeout_s=5) as product:
        yield product.fill()


def pytest_collection_modifyitems(items):
    for item in items:
        if {"shop", "unusual"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.redis)
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))
