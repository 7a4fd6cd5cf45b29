"""Keys, bounds, caches, impressions and the queue, over servers that run."""

import asyncio
import time
from itertools import pairwise

import grpc
import numpy as np
import pytest
import trustme
from helpers.books import books_of, put_book
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import NOW, shop_events

from headrace.settings import Settings
from schemas.avro_decoder import Limits, decode
from schemas.ids import hash_id
from schemas.registry import FolderRegistry
from serving.app.follower import Follower
from serving.auth.api_keys import BadKeys, Guard, make_key, read_keys, write_keys
from serving.engine import micro_batcher as gather_module
from serving.engine.calls import RequestFailed
from serving.engine.micro_batcher import MicroBatcher, Overloaded
from serving.engine.offline_copy import CATALOGUE, OfflineSnapshot
from serving.engine.recommender import Recommender
from serving.grpc.server import tls
from serving.proto import headrace_pb2, headrace_pb2_grpc
from serving.request.requests import RecommendRequest
from serving.rules.acting import Compiled
from serving.rules.book_store import live_version, to_book
from state.rows import keys
from state.settings import BadSettings
from state.store.contract import MemoryStore


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path_factory.mktemp("server"), recommender, impressions_share=1.0, require_key=True) as found:
        secrets = {}
        kept = []
        for name, scopes, per_second in (
            ("reader", ("recommend",), 0), ("sender", ("events",), 0), ("boss", ("recommend", "rules"), 0),
            ("slow", ("recommend",), 2),
        ):  # fmt: skip
            secrets[name], key = make_key(name, scopes, per_second)
            kept.append(key)
        write_keys(found.keys, kept)
        found.guard.follow()
        found.secrets = secrets
        yield found


def ask(server, key, method="POST", path="/v1/recommend", kind=None, **more):
    headers = {"Content-Type": kind} if kind else {}
    if key:
        headers["Authorization"] = f"Bearer {server.secrets.get(key, key)}"
    return server.client.request(method, path, headers=headers, **more)


def test_a_key_s_rate_is_bounded(server):
    codes = [ask(server, "slow", json={}).status_code for _ in range(6)]
    assert codes[0] == 200
    assert 429 in codes
    refused = ask(server, "slow", json={})
    assert refused.status_code == 200 or refused.headers["retry-after"] == "1"


def test_grpc_asks_for_the_key_too(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = headrace_pb2_grpc.HeadraceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Recommend(headrace_pb2.RecommendRequest())
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as refusal:
            list(stub.RecommendStream(iter([headrace_pb2.RecommendRequest()])))
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {server.secrets['reader']}"),)
        assert stub.Recommend(headrace_pb2.RecommendRequest(), metadata=metadata).items


def test_only_hashes_rest_on_disk_and_a_damaged_file_is_refused(server, tmp_path):
    text = server.keys.read_text()
    assert not any(secret in text for secret in server.secrets.values())
    assert server.keys.stat().st_mode & 0o077 == 0
    (tmp_path / "keys.json").write_text('[{"name": "x"}]')
    with pytest.raises(BadKeys, match="holds no API keys"):
        read_keys(tmp_path / "keys.json")


def test_a_rule_put_over_rest_is_a_version_with_its_author(server):
    book = "rules:\n- {id: no-cup, action: exclude, where: brand == 'x'}"
    put = ask(server, "boss", "PUT", "/v1/rules?author=boss&note=why", content=book, kind="application/yaml")
    assert put.status_code == 201
    newest = ask(server, "boss", "GET", "/v1/rules/history").json()["versions"][0]
    assert (newest["version"], newest["author"], newest["note"]) == (put.json()["version"], "boss", "why")
    broken = "rules: [{id: a, action: explode}]"
    bad = ask(server, "boss", "PUT", "/v1/rules?author=boss", content=broken, kind="application/yaml")
    assert (bad.status_code, bad.json()["error"]["field"]) == (422, "rule a")
    shown = ask(server, "boss", path="/v1/rules/preview", json={"book": {"placements": {"x": {}}}, "request": {}})
    assert set(shown.json()) == {"before", "after", "skipped_rules"}
    wrong = ask(server, "boss", path="/v1/rules/preview", json={"request": {"count": 0}})
    assert wrong.json()["error"]["field"] == "request.count"
    assert ask(server, "boss", path="/v1/rules/preview", json={"at": "noon"}).json()["error"]["field"] == "at"


def test_what_was_shown_is_on_the_impressions_topic(server):
    before = server.log.end()["impressions:0"]
    answer = ask(server, "reader", json={"user": "ann", "count": 3}).json()
    deadline, payload = time.monotonic() + 10, b""
    while payload.count(answer["request_id"].encode()) < 3:  # those of answers before it may still be on their way
        assert time.monotonic() < deadline
        time.sleep(0.01)
        raw = server.log.read({**server.log.end(), "impressions:0": before}, 1000, 1)
        payload = raw.payload.tobytes()
    decoded = decode(raw, FolderRegistry(), NOW + 10_000, Limits())
    assert decoded.n_impressions >= 3
    assert decoded.bad == []
    assert answer["attribution"].startswith(answer["request_id"])


def test_lists_for_everybody_can_be_cached(server):
    first = ask(server, "reader", "GET", "/v1/popular")
    assert first.headers["cache-control"] == "public, max-age=5"
    headers = {"X-API-Key": server.secrets["reader"], "If-None-Match": first.headers["etag"]}
    assert server.client.get("/v1/popular", headers=headers).status_code == 304
    headers["If-None-Match"] = '"other"'
    assert server.client.get("/v1/popular", headers=headers).status_code == 200


def test_a_batch_and_a_stream_give_what_single_requests_give(server):
    requests = [{"user": user, "count": 3} for user in ("ann", "bob", "nobody")]
    alone = [ask(server, "reader", json=one).json() for one in requests]
    batch = ask(server, "reader", path="/v1/recommend/batch", json={"requests": requests}).json()["answers"]
    metadata = (("x-api-key", server.secrets["reader"]),)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = headrace_pb2_grpc.HeadraceStub(channel)
        messages = [headrace_pb2.RecommendRequest(**one) for one in requests]
        rpc = stub.RecommendBatch(headrace_pb2.BatchRequest(requests=messages), metadata=metadata).answers
        streamed = list(stub.RecommendStream(iter(messages), metadata=metadata))
        bad = headrace_pb2.BatchRequest(requests=[headrace_pb2.RecommendRequest(count=999)])
        with pytest.raises(grpc.RpcError, match=r"requests\.0\.count"):
            stub.RecommendBatch(bad, metadata=metadata)
    for one, other, third, fourth in zip(alone, batch, rpc, streamed, strict=True):
        names = [entry["item"] for entry in one["items"]]
        assert [entry["item"] for entry in other["items"]] == names
        assert [entry.item for entry in third.items] == [entry.item for entry in fourth.items] == names
    wrong = ask(server, "reader", path="/v1/recommend/batch", json={"requests": [{}, {"placement": "moon"}]})
    assert wrong.json()["error"]["field"] == "requests.1.placement"
    assert ask(server, "reader", path="/v1/recommend/batch", json=[]).status_code == 422


def test_a_stream_answers_what_came_before_a_bad_request_and_then_refuses(server):
    wrong = headrace_pb2.RecommendRequest(count=999)
    metadata = (("x-api-key", server.secrets["reader"]),)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = headrace_pb2_grpc.HeadraceStub(channel)
        for n_before in [*range(20)] * 10:  # the refusal meets the writing of an answer only now and then
            before = [headrace_pb2.RecommendRequest(user="ann", count=1 + n) for n in range(n_before)]
            answers = stub.RecommendStream(iter([*before, wrong]), metadata=metadata, timeout=30)
            lengths = []
            with pytest.raises(grpc.RpcError, match="count") as refused:
                lengths.extend(len(answer.items) for answer in answers)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert len(lengths) == n_before


@pytest.mark.parametrize(
    ("body", "field"),
    [({"placement": "moon"}, "placement"), ({"cursor": "zzz"}, "cursor"), ({"cursor": "é" * 100}, "cursor"),
     ({"filters": {"where": "x"}}, "filters.where"),
     ({"strategy": "magic"}, "strategy"), ({"explore": 99}, "explore")],
)  # fmt: skip
def test_what_only_the_server_can_check_is_named_too(server, body, field):
    answer = ask(server, "reader", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


def test_past_the_marks_requests_are_answered_cheaply_and_then_refused(monkeypatch):
    monkeypatch.setattr(gather_module, "CHEAP_ABOVE", 4)
    monkeypatch.setattr(gather_module, "REFUSE_ABOVE", 6)
    recommender, _ = recommender_of(shop_events())

    async def flood():
        gather = MicroBatcher(recommender)
        many = [gather.recommend(RecommendRequest(user=f"v{n}")) for n in range(12)]
        return await asyncio.gather(*many, return_exceptions=True)

    found = asyncio.run(flood())
    refused = [one for one in found if isinstance(one, Overloaded)]
    cheap = [one for one in found if getattr(one, "fallback", "") == "last_known_popular"]
    assert refused or cheap
    assert all(isinstance(one, Overloaded) or one.items for one in found)


def test_equal_requests_of_a_batch_are_answered_once():
    recommender, _ = recommender_of(shop_events())
    asked = []
    plain = recommender.batch
    recommender.batch = lambda requests, now_ms: asked.extend(requests) or plain(requests, now_ms)

    async def together():
        gather = MicroBatcher(recommender)
        answers = [asyncio.get_running_loop().create_future() for _ in range(7)]
        keys = [(b"ann", "ann")] * 5 + [(b"bob", "bob"), (b"", "bob")]
        for answer, (key, user) in zip(answers, keys, strict=True):
            gather.submit([RecommendRequest(user=user)], key, lambda found, answer=answer: answer.set_result(found[0]))
        return await asyncio.gather(*answers)

    answers = asyncio.run(together())
    assert len(asked) == 3
    assert len({answer.request_id for answer in answers[:5]}) == 1
    assert answers[5].items == answers[6].items


def test_calls_larger_than_a_batch_are_answered_in_order_beside_others(monkeypatch):
    monkeypatch.setattr(gather_module, "MAX_OF_CALLS", 4)
    recommender, _ = recommender_of(shop_events())
    sizes, plain = [], recommender.batch
    recommender.batch = lambda requests, now_ms: sizes.append(len(requests)) or plain(requests, now_ms)

    async def together():
        gather = MicroBatcher(recommender)
        asked = [[1 + n % 3 for n in range(calls)] for calls in (11, 1, 3, 6)]
        many = [gather.recommend_all([RecommendRequest(user="ann", count=n) for n in counts]) for counts in asked]
        return asked, await asyncio.gather(*many)

    asked, found = asyncio.run(together())
    assert [[len(answer.items) for answer in answers] for answers in found] == asked
    assert len({answer.request_id for answers in found for answer in answers}) == sum(map(len, asked)) == sum(sizes)
    assert max(sizes) <= 4 + 3  # the call that fills a batch is taken whole


def test_a_call_of_which_a_piece_fails_fails_once(monkeypatch):
    monkeypatch.setattr(gather_module, "MAX_OF_CALLS", 4)
    recommender, _ = recommender_of(shop_events())
    plain, begun, heard = recommender.batch, [], []

    def fails_second(requests, now_ms):
        begun.append(len(requests))
        if len(begun) == 2:
            raise RuntimeError("broken")
        return plain(requests, now_ms)

    recommender.batch = fails_second

    async def one_call():
        gather = MicroBatcher(recommender)
        gather.submit([RecommendRequest(user="ann")] * 11, b"", heard.append)
        while sum(begun) < 11:
            await asyncio.sleep(0.01)
        return await gather.recommend(RecommendRequest(user="ann"))

    assert asyncio.run(one_call()).items
    assert [type(one) for one in heard] == [RequestFailed]


@pytest.mark.parametrize("when", ["beginning", "answering"])
def test_a_batch_that_fails_says_so_and_the_next_one_is_answered(when):
    recommender, _ = recommender_of(shop_events())
    plain = recommender.batch

    def fails(*_):
        raise RuntimeError("broken")

    def fails_later(*args):
        batch = plain(*args)
        batch.answer = fails
        return batch

    async def one_after_the_other():
        gather = MicroBatcher(recommender)
        recommender.batch = fails if when == "beginning" else fails_later
        failed = await asyncio.gather(
            *(gather.recommend(RecommendRequest(user="ann")) for _ in range(2)), return_exceptions=True
        )
        recommender.batch = plain
        return failed, await gather.recommend(RecommendRequest(user="ann"))

    failed, answer = asyncio.run(one_after_the_other())
    assert [type(one) for one in failed] == [RequestFailed, RequestFailed]
    assert failed[0].request_id != failed[1].request_id
    assert answer.items


def test_the_copy_on_disk_answers_what_the_server_last_knew(tmp_path):
    recommender, store = recommender_of(shop_events())
    put_book(store, to_book({"rules": [{"id": "a", "action": "exclude", "where": "price > 1"}]}), "ann", NOW)
    recommender.shop.rules = Compiled(to_book({"rules": [{"id": "a", "action": "exclude", "where": "price > 1"}]}), 1)
    copy = OfflineSnapshot(tmp_path)
    assert copy.generation() is None
    copy.save(recommender.shop)
    fresh = Recommender(MemoryStore(), Settings(server_cached_items=1000), "g1")
    assert OfflineSnapshot(tmp_path).load_into(fresh.shop)
    request = RecommendRequest(user="ann", count=5)
    assert fresh.from_memory(request, NOW).items == recommender.from_memory(request, NOW).items
    assert (fresh.shop.rules.version, fresh.shop.rules.book) == (1, recommender.shop.rules.book)
    other = Recommender(MemoryStore(), Settings(server_cached_items=1000), "g2")
    assert not OfflineSnapshot(tmp_path).load_into(other.shop)
    (tmp_path / "lists.json").write_text("{")
    assert copy.generation() is None


def test_the_copy_on_disk_follows_changes_and_does_not_grow_for_ever(tmp_path):
    recommender, _ = recommender_of(shop_events())
    copy, catalogue, path = OfflineSnapshot(tmp_path), recommender.shop.catalogue, tmp_path / CATALOGUE
    ids = catalogue.ids[:3]
    sizes = []
    for price in range(1, 40):
        some = ids[: 1 + price % 3]
        hashes = np.array([hash_id(one) for one in some], np.uint64)
        catalogue.take(some, hashes, [{"title": f"at {price}", "price": price, "stock": 0}] * len(some))
        copy.save(recommender.shop)
        sizes.append(sum(line.startswith(b"{") for line in path.read_bytes().split(b"\n")))
        if price == 20:
            path.write_bytes(path.read_bytes() + b'{"item": "te')  # another server's last words
        fresh = Recommender(MemoryStore(), Settings(server_cached_items=1000), "g1")
        assert OfflineSnapshot(tmp_path).load_into(fresh.shop)
        assert {one: fresh.shop.catalogue.get(hash_id(one)) for one in catalogue.ids} == {
            one: catalogue.get(hash_id(one)) for one in catalogue.ids
        }
    assert any(later < earlier for earlier, later in pairwise(sizes))
    assert max(sizes) <= 2 * len(catalogue)


def test_grpc_over_mutual_tls_lets_in_only_whom_the_authority_signed(tmp_path):
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    pem = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}
    settings = Settings(grpc_certificate=pem["cert"], grpc_private_key=pem["key"], grpc_client_ca=pem["ca"])
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path, recommender, settings=settings) as found:

        def ask_as(client):
            chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
            credentials = grpc.ssl_channel_credentials(
                authority.cert_pem.bytes(), client.private_key_pem.bytes(), chain
            )
            with grpc.secure_channel(f"localhost:{found.grpc_port}", credentials) as channel:
                stub = headrace_pb2_grpc.HeadraceStub(channel)
                return stub.Recommend(headrace_pb2.RecommendRequest(), timeout=5)

        assert ask_as(authority.issue_cert("shop")).items
        with pytest.raises(grpc.RpcError):
            ask_as(stranger.issue_cert("shop"))
    lost = settings.model_copy(update={"grpc_client_ca": tmp_path / "lost.pem"})
    with pytest.raises(BadSettings, match=r"HEADRACE_GRPC_CLIENT_CA: .*lost\.pem"):
        tls(lost)
    with pytest.raises(BadSettings, match="GRPC_PRIVATE_KEY"):
        tls(Settings(grpc_certificate=tmp_path / "cert.pem"))


def test_a_server_follows_the_live_book_and_keeps_it_when_the_store_has_lost_its_data(tmp_path):
    recommender, store = recommender_of(shop_events())
    settings = Settings(data_dir=tmp_path)
    follower = Follower(recommender, settings, Guard(tmp_path / "keys.json"), books_of(store, tmp_path))
    put_book(store, to_book({"rules": [{"id": "a", "action": "min_stock", "least": 2}]}), "ann", NOW, folder=tmp_path)

    async def first_look():
        await follower.look()
        await follower.saved()

    asyncio.run(first_look())
    assert (recommender.shop.rules.version, follower.ready) == (1, True)
    assert OfflineSnapshot(settings.offline_dir).generation() == "g1"
    put_book(store, to_book({}), "ann", NOW, folder=tmp_path)
    asyncio.run(follower.look())
    assert recommender.shop.rules.version == 2
    store.rows.clear()
    asyncio.run(follower.look())
    assert (recommender.shop.rules.version, recommender.book_missing) == (2, True)
    follower._restored_at = 0.0  # some seconds later
    asyncio.run(follower.look())
    assert (live_version(store), recommender.shop.rules.version, recommender.book_missing) == (2, 2, False)
    store.write({keys.positions(keys.RULES): b'{"book":7,"newest":7}', keys.rules(7): b'{"book": {"rules": 1}}'})
    asyncio.run(follower.look())
    assert recommender.shop.rules.version == 2
