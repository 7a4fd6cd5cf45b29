"""The whole product as it is run: a Redis, `headrace flow` and `headrace serve` as processes, events over HTTP.

A small shop on it has something for every strategy, reason and filter: see `history`.
"""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress

import grpc
import httpx

from helpers.up import HEADRACE, wait_for
from serving.proto import headrace_pb2_grpc
from state.embedded_redis import EmbeddedRedis
from state.ports import free_port

DAY, MINUTE = 86_400_000, 60_000
PRODUCTS = [
    {"item": "tea", "title": "Tea", "brand": "Acme", "category": "drinks/tea", "price": 4.0, "stock": 9},
    {"item": "cup", "title": "Cup", "brand": "Globex", "category": "kitchen", "price": 8.0, "stock": 5},
    {"item": "mate", "title": "Mate", "brand": "Acme", "category": "drinks/mate", "price": 5.0, "stock": 7},
    {"item": "sofa", "title": "Sofa", "brand": "Initech", "category": "living", "price": 900.0, "stock": 1},
    {"item": "plate", "title": "Plate", "brand": "Solo", "category": "table", "price": 9.5, "stock": 3},
    {"item": "pen", "title": "Pen", "brand": "Write", "category": "desk", "price": 30.0},
    {"item": "ink", "title": "Ink", "brand": "Write", "category": "desk", "price": 31.0},
    {"item": "spare", "title": "Spare part", "brand": "Nobody", "category": "parts", "price": 32.0},
    {"item": "gone", "title": "Sold out", "brand": "Globex", "category": "kitchen", "price": 7.0, "stock": 0},
    {"item": "local", "title": "Only here", "brand": "Initech", "category": "misc", "price": 3.0,
     "attributes": {"countries": "DE"}},
    *({"item": f"other{n}", "title": f"Other {n}", "brand": f"b{n % 3}", "category": "misc", "price": 10.0 + n}
      for n in range(10)),
]  # fmt: skip
FACTS = {one["item"]: {name: one[name] for name in ("brand", "category", "price")} for one in PRODUCTS}
BOOK = {
    "rules": [
        {"id": "first-sofa", "action": "pin", "items": ["sofa"], "placements": ["landing"]},
        {"id": "no-globex", "action": "exclude", "where": "brand == 'Globex'", "when": "country == 'FR'"},
        {"id": "cheap-first", "action": "boost", "where": "price < 5", "factor": 50, "placements": ["trial"]},
    ],
    "placements": {"landing": {"count": 4}, "trial": {"count": 4}, "arms": {}},
    "experiments": [
        {"id": "lists", "placements": ["arms"], "arms": [{"name": "plain"}, {"name": "fresh", "strategy": "new"}]},
    ],
}  # fmt: skip


def event(kind, who, item, at, **more):
    """Return an event of a user, or of the session where the name begins with `s:`."""
    name = {"session": who[2:]} if who.startswith("s:") else {"user": who}
    given = {"type": kind, **name, "item": item, "ts_ms": at, **FACTS[item], **more}
    return {name: value for name, value in given.items() if value is not None}


def history(now):
    """Return the shop's events in order: what came two months ago first."""
    events = [event("purchase", "eve", "tea", now - days * DAY) for days in (60, 40, 20)]
    events += [event("purchase", "eve", item, now - 19 * DAY) for item in ("cup", "mate")]
    events += [event("view", f"w{n}", "sofa", now - 12 * DAY + n * MINUTE, country="FR") for n in range(30)]
    events += [event("view", f"w{n}", "plate", now - 11 * DAY + n * MINUTE) for n in range(3)]
    events += [event("view", "priced", item, now - 2 * DAY) for item in ("cup", "other0", "other1")]
    events += [event("purchase", "bob", "tea", now - 9 * DAY), event("purchase", "bob", "sofa", now - 8 * DAY)]
    events += [event("view", "eve", "mate", now - 3 * DAY)]
    for n in range(10):
        at = now - DAY + n * MINUTE
        events += [event("view", f"v{n}", item, at + 1000 * k, country="DE")
                   for k, item in enumerate(("tea", "cup", f"other{n}", "gone", "local"))]  # fmt: skip
        events += [event("purchase", f"v{n}", item, at + 6000) for item in ("cup", "tea", "mate")]
    events += [event("view", f"x{n}", "mate", now - 3 * MINUTE + n * 1000) for n in range(25)]
    events += [event("view", "ann", "tea", now - MINUTE), event("view", "s:visit", "tea", now - MINUTE)]
    events += [event("purchase", "carl", "tea", now - MINUTE), event("add_to_cart", "cara", "tea", now - MINUTE)]
    events += [event("wishlist", "wim", "tea", now - MINUTE)]
    events += [event("purchase", "paul", item, now - 30 * DAY) for item in ("pen", "ink")]
    events += [event("view", "dora", "tea", now - 2 * MINUTE), event("dislike", "dora", "cup", now - MINUTE)]
    return sorted(events, key=lambda one: one["ts_ms"])


class Process:
    """A program of the product, with what it wrote."""

    def __init__(self, name, environment, folder):
        self.name, self.said = name, folder / f"{name}.log"
        with self.said.open("ab") as out:
            self.process = subprocess.Popen([*HEADRACE, name], env=environment, stdout=out, stderr=out)

    def is_alive(self):
        assert self.process.poll() is None, f"{self.name} ended:\n{self.said.read_text()[-3000:]}"
        return True

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()  # nothing, where it has ended


class Product:
    """Redis, a flow and a server, with the settings given as a process reads them."""

    def __init__(self, folder, host="127.0.0.1", **settings):
        """A setting that is None is none of the environment's: `config` names the file that has it."""
        self.folder, self.redis, self.host, self.eviction = folder, EmbeddedRedis(folder / "redis"), host, "noeviction"
        self.ports = {name: free_port() for name in ("http_port", "grpc_port", "flow_metrics_port")}
        settings = {"data_dir": folder, "factors": 4, "n_lanes": 1, **self.ports, **settings}
        given = {f"HEADRACE_{name.upper()}": value for name, value in settings.items()}
        kept = {name: value for name, value in os.environ.items() if name not in given}
        self.environment = kept | {name: str(value) for name, value in given.items() if value is not None}
        self.url = f"http://{host}:{self.ports['http_port']}"
        self.processes = []

    def __enter__(self):
        self.redis.__enter__()
        self.redis.client().config_set("maxmemory-policy", self.eviction)
        self.redis.client().config_set("maxmemory", 1 << 30)
        self.environment["HEADRACE_REDIS_URL"] = self.redis.url
        self.client = httpx.Client(base_url=self.url, timeout=30)
        self.channel = grpc.insecure_channel(f"{self.host}:{self.ports['grpc_port']}")
        self.stub = headrace_pb2_grpc.HeadraceStub(self.channel)
        try:
            self.flow, self.server = self.start("flow"), self.start("serve")
            wait_for(self.is_up, 500)  # it may have kernels to compile
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, name):
        process = Process(name, self.environment, self.folder)
        self.processes.append(process)
        return process

    def is_up(self):
        assert all(process.is_alive() for process in self.processes)
        with suppress(httpx.TransportError):
            return self.client.get("/healthz").status_code == 200

    def __exit__(self, *error):
        self.client.close()
        self.channel.close()
        for process in reversed(self.processes):
            if process.process.poll() is None:
                process.stop()
        self.redis.__exit__(*(error or (None, None, None)))

    def command(self, *arguments, timeout=240, **more):
        """Run a command of the product; return what `subprocess.run` returns."""
        environment = self.environment | more
        return subprocess.run([*HEADRACE, *arguments], env=environment, capture_output=True, text=True,
                              timeout=timeout, check=False)  # fmt: skip

    def run(self, *arguments, code=0):
        """Run a command with `--json`; return what it printed."""
        done = self.command(*arguments, "--json")
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def send(self, *events):
        answer = self.client.post("/v1/events", json=list(events))
        assert answer.status_code == 202, answer.text

    def wait_until_folded(self):
        def has_no_lag():
            generations = self.run("status")["generations"]
            return all(lane["lag"] == 0 for lane in generations["g1"]["lanes"])

        wait_for(has_no_lag, 120)

    def ask(self, **request):
        answer = self.client.post("/v1/recommend", json=request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def exposition(self, of="http_port"):
        """Return the lines that Prometheus reads at a port."""
        return httpx.get(f"http://{self.host}:{self.ports[of]}/metrics", timeout=20).text.splitlines()

    def fill(self, generation="g1"):
        """Send the shop's products and events, put its rules, train an anchor, and wait until all of it is in use."""
        now = time.time_ns() // 1_000_000
        self.send(*({"type": "product", "ts_ms": now - 90 * DAY, **one} for one in PRODUCTS))
        self.send(*history(now))
        # A pin of a product that the server has not taken over yet is refused.
        wait_for(lambda: self.client.put("/v1/rules?author=test", json=BOOK).status_code == 201)
        wait_for(lambda: self.ask(session="visit")["fallback"] == "personalised")
        self.anchor = self.run("anchor")["version"]
        wait_for(lambda: self.ask(user="ann")["anchor"] == self.anchor, 120)
        wait_for(lambda: self.ask(placement="landing", user="ann")["rules_version"] == 1)
        assert self.ask(user="ann")["generation"] == generation
        return self
