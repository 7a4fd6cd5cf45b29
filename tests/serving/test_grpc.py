"""The gRPC server to clients of every kind: grpcio's, and frames that no client should send."""

import asyncio
import gzip
import queue
import re
import threading
import time

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import structlog
import trustme
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from helpers.recommenders import recommender_of
from helpers.running_server import running
from helpers.serving_rows import product, shop_events

from headrace.bench.grpc_load import GrpcLoad
from headrace.settings import Settings
from serving.auth.api_keys import Refused
from serving.engine.micro_batcher import Overloaded
from serving.engine.recommender import BadRequest
from serving.grpc import service
from serving.grpc.server import MAX_MESSAGE, tls
from serving.grpc.service import make_server
from serving.grpc.streams import MAX_IN_STREAM
from serving.proto import headrace_pb2, headrace_pb2_grpc
from state.ports import free_port
from state.settings import BadSettings
from state.store.contract import StoreUnavailable

RECOMMEND = "/headrace.v1.Headrace/Recommend"
STREAM = RECOMMEND + "Stream"
ASKED = headrace_pb2.RecommendRequest(user="ann", count=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    recommender, _ = recommender_of(shop_events(), [product("tea", "Green tea")])
    with running(tmp_path_factory.mktemp("server"), recommender) as found:
        yield found


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


def test_health_and_reflection_are_there(channel):
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check", lambda one: one.SerializeToString(), health_pb2.HealthCheckResponse.FromString
    )
    for name in ("", "headrace.v1.Headrace"):
        answer = check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refusal:
        check(health_pb2.HealthCheckRequest(service="of nobody"))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_is_there_in_both_versions(channel):
    reads = reflection_pb2.ServerReflectionResponse.FromString
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        ask = channel.stream_stream(path, lambda one: one.SerializeToString(), reads)
        name = "headrace.v1.Headrace"
        listed, found = ask(
            iter(
                [
                    reflection_pb2.ServerReflectionRequest(list_services=""),
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
                ]
            )
        )
        assert "headrace.v1.Headrace" in [one.name for one in listed.list_services_response.service]
        assert headrace_pb2.DESCRIPTOR.serialized_pb in found.file_descriptor_response.file_descriptor_proto


def test_a_port_that_is_taken_is_named(server):
    async def listen():
        taken = Settings(http_host="127.0.0.1", grpc_port=server.grpc_port)
        await make_server(server.recommender, None, server.guard).listen(taken)

    with pytest.raises(BadSettings, match=f"HEADRACE_GRPC_PORT: port {server.grpc_port} of 127.0.0.1"):
        asyncio.run(listen())


def test_servers_share_a_port_where_the_setting_says_so(server):
    async def listen():
        shared = Settings(http_host="127.0.0.1", grpc_port=free_port(), reuse_port=True)
        servers = [make_server(server.recommender, server.gather, server.guard) for _ in range(2)]
        for one in servers:
            await one.listen(shared)
        for one in servers:
            await one.stop(0)

    asyncio.run(listen())


def test_a_file_that_is_no_certificate_key_or_authority_is_named(tmp_path):
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "other", "none")}
    authority = trustme.CA()
    for cert, key in (("cert", "key"), ("none", "other")):
        issued = authority.issue_cert("localhost")
        files[cert].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        files[key].write_bytes(issued.private_key_pem.bytes())
    files["none"].write_text("no certificate")

    def reason_of(certificate, key, client_ca=None):
        paths = {name: file and files[file] for name, file in (("certificate", certificate), ("private_key", key))}
        paths["client_ca"] = client_ca and files[client_ca]
        with pytest.raises(BadSettings) as refusal:
            tls(Settings(**{f"grpc_{name}": path for name, path in paths.items()}))
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    assert reason_of("none", "key").startswith("HEADRACE_GRPC_CERTIFICATE, HEADRACE_GRPC_PRIVATE_KEY")
    assert reason_of("cert", "other").startswith("HEADRACE_GRPC_CERTIFICATE, HEADRACE_GRPC_PRIVATE_KEY")
    assert reason_of("cert", "key", "none").startswith("HEADRACE_GRPC_CLIENT_CA")
    assert reason_of(None, "key").startswith("HEADRACE_GRPC_CERTIFICATE is needed")
    assert tls(Settings(grpc_certificate=files["cert"], grpc_private_key=files["key"])) is not None


def test_packed_requests_are_read(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", compression=grpc.Compression.Gzip) as channel:
        stub = headrace_pb2_grpc.HeadraceStub(channel)
        assert len(stub.Recommend(ASKED, timeout=5).items) == 3
        assert [len(answer.items) for answer in stub.RecommendStream(iter([ASKED] * 3), timeout=5)] == [3] * 3


def frame(body, packed=False, size=None):
    return bytes([packed]) + (len(body) if size is None else size).to_bytes(4) + body


GOOD = ASKED.SerializeToString()


class Raw:
    """A client that sends what it likes over one connection."""

    def __init__(self, port):
        self.port = port

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []
        return self

    async def __aexit__(self, *error):
        self.writer.close()

    def call(self, path=RECOMMEND, **more):
        said = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": path, "te": "trailers", **more}
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*said.items(), ("content-type", "application/grpc")])
        return stream

    def send(self, stream, data, end=True):
        for at in range(0, len(data), 16_000):
            self.h2.send_data(stream, data[at : at + 16_000])
        if end:
            self.h2.end_stream(stream)

    async def flush(self):
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def end_of(self, stream, acknowledge=False):
        """Return status and message of the trailers."""
        await self.flush()
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    headers = dict(getattr(event, "headers", ()))
                    if getattr(event, "stream_id", None) == stream and "grpc-status" in headers:
                        return int(headers["grpc-status"]), headers.get("grpc-message", "")
                data = await self.reader.read(65_536)
                assert data, "the server closed the connection"
                for event in self.h2.receive_data(data):
                    self.events.append(event)
                    if acknowledge and isinstance(event, h2.events.DataReceived):
                        self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                await self.flush()


INVALID, EXHAUSTED, INTERNAL = (
    grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
    grpc.StatusCode.INTERNAL.value[0],
)  # fmt: skip
BOMB = gzip.compress(bytes(MAX_MESSAGE + 1))
PACKED = {"grpc-encoding": "gzip"}


@pytest.mark.parametrize(
    ("data", "more", "status"),
    [
        (frame(GOOD), {}, 0), (frame(b""), {}, 0), (frame(gzip.compress(GOOD), True), PACKED, 0), (b"", {}, INVALID),
        (frame(GOOD, size=len(GOOD) + 1), {}, INVALID), (frame(b"\xff" * 9), {}, INVALID),
        (frame(GOOD, size=MAX_MESSAGE + 1), {}, EXHAUSTED), (frame(gzip.compress(GOOD), True), {}, INTERNAL),
        (frame(gzip.compress(GOOD)[:2] + GOOD, True), PACKED, INTERNAL), (frame(BOMB, True), PACKED, EXHAUSTED),
    ],
    ids=["good", "empty", "packed", "nothing", "cut short", "no message", "too large", "packed somehow", "not gzip",
         "bomb"],
)  # fmt: skip
def test_what_is_sent_gets_its_status_and_the_connection_goes_on(server, data, more, status):
    async def ask():
        async with Raw(server.grpc_port) as client:
            stream = client.call(**more)
            client.send(stream, data)
            said = await client.end_of(stream)
            again = client.call()
            client.send(again, frame(GOOD))
            return said, await client.end_of(again)

    said, again = asyncio.run(ask())
    assert said[0] == status, said
    assert again == (0, "")


@pytest.mark.parametrize("data", [b"", frame(GOOD)[:3], frame(GOOD)[:-1]], ids=["nothing", "a length", "a part"])
def test_a_request_that_never_comes_whole_is_not_waited_for(server, monkeypatch, data):
    monkeypatch.setattr(service, "MESSAGE_S", 0.3)

    async def ask():
        async with Raw(server.grpc_port) as client:
            stream = client.call()
            client.send(stream, data, end=False)
            return await client.end_of(stream)

    assert asyncio.run(ask()) == (INVALID, "no whole request has come in 0.3 s")


def test_answers_larger_than_a_frame_or_than_the_client_s_window_come_in_parts(server):
    async def ask(window):
        async with Raw(server.grpc_port) as client:
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
            stream, found = client.call(), bytearray()
            client.send(
                stream, frame(headrace_pb2.RecommendRequest(user="ann", count=200, explain=True).SerializeToString())
            )
            said = await client.end_of(stream, acknowledge=True)
            for event in client.events:
                if isinstance(event, h2.events.DataReceived):
                    found += event.data
            return said, headrace_pb2.Answer.FromString(bytes(found[5:])), len(found)

    for window in (200, 65_535):
        said, answer, size = asyncio.run(ask(window))
        assert said == (0, "")
        assert len(answer.items) > 5
        assert size > 200


@pytest.mark.parametrize("how", ["resets", "goes"])
def test_nothing_is_kept_of_a_client_that_stops_reading(server, how):
    async def ask():
        async with Raw(server.grpc_port) as client:
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
            stream = client.call()
            client.send(stream, frame(GOOD))
            await client.flush()
            while not any(isinstance(event, h2.events.DataReceived) for event in client.events):
                client.events += client.h2.receive_data(await client.reader.read(65_536))
                await client.flush()
            if how == "resets":
                client.h2.reset_stream(stream)
                await client.flush()
                await until_idle()

    async def until_idle():
        async with asyncio.timeout(5):
            while server.calls_under_way:
                await asyncio.sleep(0.01)

    asyncio.run(ask())
    asyncio.run(until_idle())


def answers_of(client, stream):
    """Return the messages that came on a stream."""
    parts = [one.data for one in client.events if isinstance(one, h2.events.DataReceived) and one.stream_id == stream]
    data, found = b"".join(parts), []
    while data:
        end = 5 + int.from_bytes(data[1:5])
        found.append(headrace_pb2.Answer.FromString(data[5:end]))
        data = data[end:]
    return found


def asked_for(count):
    return frame(headrace_pb2.RecommendRequest(user="ann", count=count).SerializeToString())


@pytest.mark.parametrize("window", [200, 65_535])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 20], ids=["bytes", "parts", "all"])
def test_a_stream_is_answered_in_its_order_however_it_comes_and_however_slowly_it_is_read(server, window, at_once):
    counts = [1 + n * n % 3 for n in range(40 if at_once == 1 else 3 * MAX_IN_STREAM)]
    data = b"".join(map(asked_for, counts))

    async def ask():
        async with Raw(server.grpc_port) as client:
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
            stream = client.call(STREAM)
            for at in range(0, len(data), at_once):
                client.send(stream, data[at : at + at_once], end=False)
            client.h2.end_stream(stream)
            said = await client.end_of(stream, acknowledge=True)
            return said, answers_of(client, stream)

    said, answers = asyncio.run(ask())
    assert said == (0, "")
    assert [len(answer.items) for answer in answers] == counts


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 0), (frame(b"\xff" * 9), INVALID), (asked_for(900), INVALID),
        (frame(b"\xff" * 9) + asked_for(1), INVALID), (asked_for(900) + asked_for(1), INVALID),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_stream_ends_it_behind_the_answers_before(server, data, status):
    async def ask():
        async with Raw(server.grpc_port) as client:
            stream = client.call(STREAM)
            client.send(stream, asked_for(1) + asked_for(2) + data)
            return await client.end_of(stream), [len(answer.items) for answer in answers_of(client, stream)]

    said, found = asyncio.run(ask())
    assert said[0] == status, said
    assert found == [1, 2]


def test_a_stream_that_nobody_reads_is_not_taken_in_without_end(server):
    async def ask():
        async with Raw(server.grpc_port) as client:
            client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
            stream = client.call(STREAM)
            client.send(stream, asked_for(3) * 1000, end=False)
            await client.flush()
            await asyncio.sleep(0.5)
            (call,) = server.wired.rpc._streams._streams
            return call._under_way.qsize()

    assert 0 < asyncio.run(ask()) <= MAX_IN_STREAM


def test_a_deadline_that_is_none_ends_the_call(server):
    async def ask(path):
        async with Raw(server.grpc_port) as client:
            stream = client.call(path, **{"grpc-timeout": "soon"})
            client.send(stream, frame(GOOD))
            return (await client.end_of(stream))[0]

    for path in (RECOMMEND, STREAM):
        assert asyncio.run(ask(path)) != 0


def test_an_unknown_method_is_said_to_be_one(channel):
    with pytest.raises(grpc.RpcError) as refusal:
        channel.unary_unary("/headrace.v1.Headrace/Guess")(b"", timeout=5)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_requests_may_come_byte_by_byte_and_end_in_any_order(server):
    async def ask():
        async with Raw(server.grpc_port) as client:
            streams = [client.call() for _ in range(20)]
            for byte in frame(GOOD):
                for stream in streams:
                    client.send(stream, bytes([byte]), end=False)
                await client.flush()
            for stream in streams[::-1]:
                client.h2.end_stream(stream)
            return [await client.end_of(stream) for stream in streams]

    assert asyncio.run(ask()) == [(0, "")] * 20


def test_a_client_that_goes_in_the_middle_harms_nobody(server, channel):
    async def go():
        async with Raw(server.grpc_port) as client:
            for n in range(50):
                stream = client.call(STREAM if n % 2 else RECOMMEND)
                client.send(stream, frame(GOOD)[: n % 9], end=False)
                if n % 3 == 0:
                    client.h2.reset_stream(stream)
            await client.flush()
            client.writer.transport.abort()

    for _ in range(5):
        asyncio.run(go())
    assert len(headrace_pb2_grpc.HeadraceStub(channel).Recommend(ASKED, timeout=5).items) == 3


def test_a_deadline_that_passes_ends_the_call(channel):
    def never():
        yield ASKED
        time.sleep(3)

    answers = headrace_pb2_grpc.HeadraceStub(channel).RecommendStream(never(), timeout=0.3)
    assert len(next(answers).items) == 3
    with pytest.raises(grpc.RpcError) as refusal:
        next(answers)
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_calls_under_way_end_before_the_server_does_and_no_answer_is_lost(tmp_path):
    recommender, _ = recommender_of(shop_events())
    asked, lost, stopping = [], [], threading.Event()
    with running(tmp_path, recommender) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        stub = headrace_pb2_grpc.HeadraceStub(channel)

        def ask():
            while not stopping.is_set():
                try:
                    asked.append(len(stub.Recommend(ASKED, timeout=5).items))
                except grpc.RpcError as error:
                    lost.append(error.code())
                    return

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        stream = stub.RecommendStream(iter([ASKED]), timeout=10)
        assert len(next(stream).items) == 3
    stopping.set()
    for thread in threads:
        thread.join()
    channel.close()
    assert len(asked) > 20
    assert set(asked) == {3}
    # Of calls that began when nobody listened any more, or in the moment of the goodbye.
    assert set(lost) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert len(lost) <= 4


def test_a_stream_on_which_nothing_is_under_way_does_not_keep_a_server_from_stopping(tmp_path):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path, recommender, grace_s=3600) as server:
        requests = queue.SimpleQueue()
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stream = headrace_pb2_grpc.HeadraceStub(channel).RecommendStream(iter(requests.get, None))
            requests.put(ASKED)
            assert len(next(stream).items) == 3
            server.stop()
            with pytest.raises(grpc.RpcError) as refusal:
                next(stream)
            requests.put(None)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert refusal.value.details() == "the server stops"
        assert server.has_stopped


def test_a_watch_of_the_health_is_told_that_the_server_stops_and_does_not_keep_it(tmp_path):
    recommender, _ = recommender_of(shop_events())
    with running(tmp_path, recommender, grace_s=3600) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            server.stop()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError) as refusal:
                next(watch)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.has_stopped


def test_a_wrong_field_is_named_in_the_details_too(channel):
    with pytest.raises(grpc.RpcError) as refusal:
        headrace_pb2_grpc.HeadraceStub(channel).Recommend(headrace_pb2.RecommendRequest(count=900), timeout=5)
    (detail,) = rpc_status.from_call(refusal.value).details
    found = error_details_pb2.BadRequest()
    assert detail.Unpack(found)
    assert [one.field for one in found.field_violations] == ["count"]


def trailers(call):
    return dict(call.trailing_metadata())


def test_a_call_has_the_id_that_it_brings_or_one_of_its_own(channel):
    stub = headrace_pb2_grpc.HeadraceStub(channel)
    brought = (("x-request-id", "shop-17"),)
    _, call = stub.Recommend.with_call(ASKED, metadata=brought, timeout=5)
    assert trailers(call)["x-request-id"] == "shop-17"
    stream = stub.RecommendStream(iter([ASKED]), metadata=brought, timeout=5)
    assert len(list(stream)) == 1
    assert trailers(stream)["x-request-id"] == "shop-17"
    ids = {trailers(stub.Recommend.with_call(ASKED, timeout=5)[1])["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Recommend(headrace_pb2.RecommendRequest(count=900), metadata=brought, timeout=5)
    assert trailers(refusal.value)["x-request-id"] == "shop-17"


def test_what_nobody_foresaw_is_logged_with_the_id_and_said_to_be_internal(tmp_path):
    recommender, _ = recommender_of(shop_events())

    def fails(*_):
        raise RuntimeError("broken")

    recommender.popular = fails
    with (
        running(tmp_path, recommender) as server,
        structlog.testing.capture_logs() as logs,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = headrace_pb2_grpc.HeadraceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Popular(headrace_pb2.PopularRequest(), metadata=(("x-request-id", "shop-18"),), timeout=5)
        assert len(stub.Recommend(ASKED, timeout=5).items) == 3
    assert refusal.value.code() is grpc.StatusCode.INTERNAL
    assert refusal.value.details() == "internal error; the server's log says more of request shop-18"
    (said,) = [one for one in logs if one["log_level"] == "error"]
    assert (said["request_id"], str(said["exc_info"])) == ("shop-18", "broken")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Overloaded("2000 requests wait"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (StoreUnavailable("no"), grpc.StatusCode.UNAVAILABLE),
        (Refused(429, "too often"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Refused(403, "no scope"), grpc.StatusCode.PERMISSION_DENIED),
        (Refused(401, "no key"), grpc.StatusCode.UNAUTHENTICATED),
        (BadRequest("count", "is too much"), grpc.StatusCode.INVALID_ARGUMENT),
        (ValueError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
def test_what_goes_wrong_in_a_batch_has_its_code(server, channel, monkeypatch, error, code):
    def fails(requests, key, done):
        if isinstance(error, Overloaded):
            raise error
        done(error)

    monkeypatch.setattr(server.gather, "submit", fails)
    stub = headrace_pb2_grpc.HeadraceStub(channel)
    calls = (
        lambda: stub.Recommend(ASKED, timeout=5), lambda: list(stub.RecommendStream(iter([ASKED]), timeout=5)),
        lambda: stub.RecommendBatch(headrace_pb2.BatchRequest(requests=[ASKED]), timeout=5),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(grpc.RpcError) as refusal:
            call()
        assert refusal.value.code() is code
        assert "secret" not in refusal.value.details()


def test_calls_are_counted_by_method_and_code(server, channel):
    def counted():
        text = server.client.get("/metrics").text
        return {
            (match[2], match[1]): float(match[3])
            for match in re.finditer(r'headrace_grpc_calls_total\{code="(\w+)",method="(\w+)"\} (\S+)', text)
        }

    stub, before = headrace_pb2_grpc.HeadraceStub(channel), counted()
    for _ in range(2):
        stub.Recommend(ASKED, timeout=5)
    list(stub.RecommendStream(iter([ASKED] * 5), timeout=5))
    with pytest.raises(grpc.RpcError):
        stub.RecommendBatch(headrace_pb2.BatchRequest(), timeout=5)
    after = counted()
    more = {("Recommend", "OK"): 2, ("RecommendStream", "OK"): 1, ("RecommendBatch", "INVALID_ARGUMENT"): 1}
    for name, n in more.items():
        assert after[name] - before.get(name, 0) == n


def test_the_load_of_the_benchmark_counts_full_lists_and_calls_without_one(server):
    def load(body, count):
        def full(answer):
            return len(headrace_pb2.Answer.FromString(answer).items) == count

        return GrpcLoad("127.0.0.1", server.grpc_port, 1, lambda user: body, full)

    refused = headrace_pb2.RecommendRequest(user="ann", count=900).SerializeToString()
    for way in (GrpcLoad.calls, GrpcLoad.stream):
        found = asyncio.run(way(load(GOOD, 3), 4, 0.3))
        assert found.full == len(found.times_s) > 4
        assert found.bad == 0
        found = asyncio.run(way(load(GOOD, 4), 4, 0.1))
        assert (found.full, found.bad) == (0, len(found.times_s))
        found = asyncio.run(way(load(refused, 3), 4, 0.1))
        assert found.full == 0
        assert found.bad >= 1
