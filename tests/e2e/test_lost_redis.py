"""The runbook's "Lost Redis": rows and rules come back from the log, and servers keep the book meanwhile."""

import json
import shutil

import pytest
from helpers.product import PRODUCTS, Product, history
from helpers.up import wait_for

pytestmark = [pytest.mark.redis, pytest.mark.e2e]
NOW = 1_790_000_000_000
ROWS = (b"{g1:0}u:*", b"{g1:0}i:*", b"{g1:0}p:*", b"{g1:0}b:*", b"{headrace:rules}*")
FIRST = "rules:\n- {id: hero, action: pin, items: [cup]}\n"
SECOND = FIRST + "- {id: no-sofa, action: exclude, where: price > 800}\nplacements: {landing: {count: 4}}\n"


def lose_redis(product):
    """End Redis as a crash does, delete its data, and start it again."""
    product.redis.kill()
    shutil.rmtree(product.folder / "redis" / "appendonlydir")
    product.redis.start()


def rows(product):
    client = product.redis.client()
    found = {key: client.get(key) for pattern in ROWS for key in client.scan_iter(pattern)}
    client.close()
    return found


def books(product):
    """Return all versions, and the live book as a server tells it."""
    return product.client.get("/v1/rules/history").json(), product.client.get("/v1/rules").json()


def has_book(product, version):
    answer = product.client.get("/v1/rules")
    return answer.status_code == 200 and answer.json()["version"] == version and product.ask(count=1)["rules_version"]


@pytest.mark.timeout(600)
def test_rows_rules_and_their_history_come_back_from_the_log_and_the_book_holds_meanwhile(tmp_path):
    with Product(tmp_path) as product:
        product.send(*({"type": "product", "ts_ms": NOW - 90 * 86_400_000, **one} for one in PRODUCTS))
        product.send(*history(NOW))
        product.wait_until_folded()
        wait_for(lambda: len(product.ask(count=20)["items"]) > 5)
        yaml = {"Content-Type": "application/yaml"}
        put = product.client.put("/v1/rules?author=ann&note=first", content=FIRST, headers=yaml)
        assert put.status_code == 201, put.text
        (tmp_path / "book.yaml").write_text(SECOND)
        again = product.command("rules", "put", str(tmp_path / "book.yaml"), "--based-on", "0", "--json")
        assert (again.returncode, "the live book is version 1" in again.stderr) == (1, True)
        put = product.run("rules", "put", str(tmp_path / "book.yaml"), "--based-on", "1", "--author", "bob")
        assert put["version"] == 2
        wait_for(lambda: has_book(product, 2))
        before, told = rows(product), books(product)
        assert [one["author"] for one in told[0]["versions"]] == ["bob", "ann"]

        lose_redis(product)  # under running programs
        wait_for(lambda: before.items() <= rows(product).items(), 120)
        wait_for(lambda: has_book(product, 2))
        assert books(product) == told
        assert product.client.get("/readyz").json()["book_missing"] is False

        for process in (product.server, product.flow):
            assert process.stop() == 0
        lose_redis(product)  # and then everything is started
        product.processes.clear()
        product.flow, product.server = product.start("flow"), product.start("serve")
        wait_for(product.is_up, 120)
        wait_for(lambda: before.items() <= rows(product).items(), 120)
        wait_for(lambda: has_book(product, 2))
        assert books(product) == told
        answer = product.ask(count=20)
        assert answer["items"][0]["item"] == "cup"
        assert "sofa" not in [one["item"] for one in answer["items"]]

        saved = tmp_path / "last-good" / "lists.json"
        wait_for(lambda: json.loads(saved.read_bytes())["rules_version"] == 2)
        for process in (product.server, product.flow):
            assert process.stop() == 0
        lose_redis(product)  # and the log with it
        product.environment["HEADRACE_LOG_URL"] = f"sqlite:{tmp_path}/other.sqlite"
        for _ in range(2):
            product.processes.clear()
            product.server = product.start("serve")
            wait_for(product.is_up, 120)
            wait_for(lambda: product.client.get("/readyz").json()["book_missing"])
            kept = product.client.get("/v1/rules").json()
            assert (kept["version"], kept["missing"], kept["book"]) == (2, True, told[1]["book"])
            assert "headrace_book_missing 1.0" in product.exposition()
            assert "neither Redis nor the log has a book" in product.server.said.read_text()
            assert product.server.stop() == 0
        product.processes.clear()
