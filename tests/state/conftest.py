import pytest

from state.embedded_redis import EmbeddedRedis, RedisMissing


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis for the tests of one file."""
    try:
        redis = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    except RedisMissing as missing:
        pytest.skip(str(missing))
    with redis:
        yield redis
