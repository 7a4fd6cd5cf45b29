"""Flow, server and trainer with a folder each, and an S3 server between them that is slow, wrong and away."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from helpers.s3_server import CREDENTIALS, S3Server

from flows.log.contract import Message
from flows.log.sqlite_log import SqliteLog
from headrace.torture.faulty_proxy import FaultyProxy
from schemas.ids import hash_id
from schemas.json_events import encode
from schemas.registry import FolderRegistry
from state.anchor import FILES, MANIFEST, anchor_versions
from state.embedded_redis import EmbeddedRedis
from state.ports import free_port
from state.rows import keys
from state.store.redis_store import RedisStore

pytestmark = [pytest.mark.s3, pytest.mark.redis, pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]
REGISTRY = FolderRegistry()
T0 = 1_700_000_000_000


def wait_until(true, seconds=600):
    deadline = time.monotonic() + seconds  # there may be kernels to compile
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Shop:
    """Programs that share a log, a Redis and an artefact store, and no folder."""

    def __init__(self, folder, redis_url, s3):
        self.folder, self.redis_url, self.s3 = folder, redis_url, s3
        self.log = SqliteLog(folder / "log.sqlite")
        self.store = RedisStore(redis_url)
        self.http = free_port()
        self._errors = {}

    def environment(self, name, endpoint, timeout_s="15"):
        return os.environ | CREDENTIALS | {
            "HEADRACE_DATA_DIR": str(self.folder / name), "HEADRACE_REDIS_URL": self.redis_url,
            "HEADRACE_LOG_URL": f"sqlite:{self.folder / 'log.sqlite'}", "HEADRACE_FLOW_METRICS_PORT": "0",
            "HEADRACE_HTTP_PORT": str(self.http), "HEADRACE_GRPC_PORT": "0", "HEADRACE_ALLOW_ANONYMOUS": "true",
            "HEADRACE_ANCHORS_URL": self.s3.address, "HEADRACE_ANCHORS_TIMEOUT_S": timeout_s,
            "HEADRACE_ANCHORS_CONFIG": json.dumps({"endpoint_url": endpoint}),
            "HEADRACE_FACTORS": "4", "HEADRACE_ALS_ITERATIONS": "3", "HEADRACE_ALS_THREADS": "1",
            "HEADRACE_MAX_CACHED_USERS": "5000", "HEADRACE_MAX_CACHED_ITEMS": "5000", "HEADRACE_LOG_FORMAT": "json",
        }  # fmt: skip

    def start(self, command, name, endpoint=None, **more):
        """Start a program with a folder of its own; what it logs is in `said`."""
        self._errors[name] = self.folder / f"{name}.log"
        with self._errors[name].open("w") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "headrace", command],
                env=self.environment(name, endpoint or self.s3.url, **more), stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip

    def said(self, name):
        return self._errors[name].read_text()

    def run(self, *command):
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *command, "--json"], env=self.environment("trainer", self.s3.url),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def train(self):
        return self.run("anchor", "--force")["version"]

    def buy(self, first, n=400):
        """Even users buy even items, odd users odd ones."""
        for k in range(first, first + n):
            user, item = k % 20, (k * 7 % 10) * 2 + k % 2
            lines = [{"item": f"i{item}", "quantity": 1.0}]
            record = {"event_id": f"e{k}", "ts_ms": T0 + k * 1000, "user": f"u{user}", "lines": lines}
            self.log.append([Message("purchases", b"", encode("purchases", record, REGISTRY), T0 + k)])

    def answer(self, user="u3"):
        body = json.dumps({"user": user, "count": 3}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/v1/recommend", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read())

    def serves(self, version):
        try:
            return self.answer()["anchor"] == version
        except OSError:
            return False

    def pointer(self, key):
        value = self.store.read([key])[0]
        return value.decode() if value else None

    def live(self):
        return self.pointer(keys.ANCHOR_LIVE)

    def copies(self, name):
        return anchor_versions(self.folder / name / "anchor-copies")

    def vector(self, user, version):
        return self.store.read([keys.vector(keys.prefix("g1", 0), version, hash_id(user))])[0]


def files_of(s3):
    """Return the names of all objects but that which a trainer tries the store with."""
    return [name for name in s3.names() if "/" in name]


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    process.wait(300)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    with S3Server() as s3, EmbeddedRedis(folder / "redis") as redis:
        shop = Shop(folder, redis.url, s3)
        yield shop
        shop.store.close()
        shop.log.close()


def test_an_anchor_travels_from_the_trainer_to_flow_and_server_whatever_the_store_does(shop):
    shop.buy(0)
    flow, server = shop.start("flow", "flow"), shop.start("serve", "server")
    try:
        # A trainer killed amid its upload: no anchor for anybody.
        with FaultyProxy(shop.s3.url) as proxy:
            proxy.play("delay")
            trainer = shop.start("anchor", "killed", f"http://127.0.0.1:{proxy.port}", timeout_s="60")
            wait_until(lambda: files_of(shop.s3) or trainer.poll() is not None)
            end(trainer, signal.SIGKILL)
        cut_short = files_of(shop.s3)
        assert 0 < len(cut_short) < len(FILES)
        assert not any(name.endswith(MANIFEST) for name in cut_short)
        assert shop.run("anchors")["anchors"] == []
        assert shop.pointer(keys.ANCHOR_PUBLISHED) is None

        # The next night: everybody has a copy of its own.
        first = shop.train()
        wait_until(lambda: shop.live() == first)
        wait_until(lambda: shop.serves(first))
        assert [shop.copies(name) for name in ("trainer", "flow", "server")] == [[first]] * 3
        assert [one["version"] for one in shop.run("anchors")["anchors"]] == [first]

        # A file that is not what was published is named, and the anchor before stays.
        end(flow)
        second = shop.train()
        shop.s3.files.pipe_file(f"{shop.s3.address}/{second}/gram.npy", b"what somebody else wrote")
        flow = shop.start("flow", "flow")
        wait_until(lambda: "gram.npy" in shop.said("flow"))
        assert "is not what the manifest says" in shop.said("flow")
        shop.buy(400, 20)
        wait_until(lambda: shop.answer()["generation"] == "g1")
        assert (shop.live(), shop.answer()["anchor"], flow.poll()) == (first, first, None)
    finally:
        for process in (flow, server):
            end(process)

    # The store is gone: a server goes on with its copy; a flow on a new machine folds, and owes vectors for a while.
    before = shop.vector("u3", first)
    with FaultyProxy(shop.s3.url) as proxy:
        proxy.play("cut")
        away = f"http://127.0.0.1:{proxy.port}"
        flow, server = shop.start("flow", "new-machine", away), shop.start("serve", "server", away)
        try:
            wait_until(lambda: shop.serves(first))
            wait_until(lambda: "anchor cannot be fetched" in shop.said("new-machine"))
            shop.buy(420, 40)
            wait_until(lambda: shop.store.read([keys.owes_vectors(keys.prefix("g1", 0))])[0] is not None)
            assert shop.vector("u3", first) == before
            proxy.play(None)
            wait_until(lambda: shop.store.read([keys.owes_vectors(keys.prefix("g1", 0))])[0] is None)
            assert shop.vector("u3", first) not in (None, before)
            assert first in shop.copies("new-machine")
        finally:
            for process in (flow, server):
                end(process)
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in "".join(
        map(shop.said, ("flow", "server", "new-machine", "killed"))
    )
