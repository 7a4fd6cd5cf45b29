import pytest

from state.embedded_redis import EmbeddedRedis


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis for the tests of one file."""
    redis = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    with redis:
        yield redis
