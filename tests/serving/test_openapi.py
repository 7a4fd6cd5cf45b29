"""Whatever schemathesis thinks of from the description of the API, no answer is a 5xx."""

import pytest
import schemathesis
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

# Imported before a server's threads run: `from_url` would import it lazily, and Python before 3.11.5 fails with "AST
# constructor recursion depth mismatch" where pytest rewrites a module while another thread compiles one (gh-106905).
from schemathesis.specs.openapi import schemas as schemas


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Tea", brand="Acme")])
    with running(tmp_path_factory.mktemp("openapi"), recommender) as found:
        yield schemathesis.openapi.from_url(f"{found.url}/openapi.json")


def test_no_request_is_answered_by_a_server_error(api):
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(checks=[not_a_server_error])

        check()
