import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.embedded_redis import EmbeddedRedis, RedisMissing
from state.ports import free_port
from state.rows import keys
from state.store.contract import Fenced, MemoryStore, StoreUnavailable
from state.store.redis_store import RedisStore
from state.store.row_block import RowBlock, RowSet

LANE = keys.prefix("g1", 0)


@pytest.fixture
def empty_server(server):
    server.client().flushall()
    return server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes that share the slots."""
    folder = tmp_path_factory.mktemp("cluster")
    options = {"cluster-enabled": "yes", "cluster-node-timeout": "5000"}
    # Left to itself the bus listens 10,000 above the port, among the ports the system gives to clients.
    nodes = [
        EmbeddedRedis(folder / port, options=options | {"port": port, "cluster-port": str(free_port())})
        for port in (str(free_port()) for _ in range(3))
    ]
    with nodes[0], nodes[1], nodes[2]:
        places = [f"127.0.0.1:{port_of(node)}" for node in nodes]
        subprocess.run(["redis-cli", "--cluster", "create", *places, "--cluster-yes"], check=True, capture_output=True)
        for node in nodes:
            while b"cluster_state:ok" not in redis_cli(node, "cluster", "info"):
                time.sleep(0.05)
        yield nodes


def port_of(node):
    return node.client().config_get("port")["port"]


def redis_cli(node, *words):
    return subprocess.run(["redis-cli", "-s", str(node.socket), *words], check=True, capture_output=True).stdout


@pytest.fixture
def empty_cluster(cluster):
    for node in cluster:
        node.client().flushall()
    return f"redis-cluster://127.0.0.1:{port_of(cluster[0])}"


@pytest.fixture(params=["memory", *(pytest.param(p, marks=pytest.mark.redis) for p in ("redis", "cluster"))])
def store(request):
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "cluster":
        store = RedisStore(request.getfixturevalue("empty_cluster"))
        yield store
        store.close()
    else:
        store = RedisStore(request.getfixturevalue("empty_server").url)
        yield store
        store.close()


def many(n, value=b"x" * 300):
    return {LANE + b"u:%d" % i: value for i in range(n)}


def test_a_commit_sets_rows_and_positions_together(store):
    assert store.positions(LANE) == {}
    store.commit(LANE, {}, {"a:0": 5}, {b"{g1:0}x": b"1", b"{g1:0}y": b"2"})
    store.commit(LANE, {"a:0": 5}, {"a:0": 7}, {b"{g1:0}x": b"3", b"{g1:0}y": None})
    assert store.positions(LANE) == {"a:0": 7}
    assert store.read([b"{g1:0}x", b"{g1:0}y", b"{g1:0}z"]) == [b"3", None, None]


@pytest.mark.parametrize("n_rows", [0, 1, 500, 501, 2000])
def test_a_commit_of_any_size_is_read_back_whole(store, n_rows):
    store.commit(LANE, {}, {"a:0": 1}, many(n_rows))
    assert store.read(list(many(n_rows))) == list(many(n_rows).values())
    assert sorted(key for chunk in store.scan(LANE + b"u:") for key in chunk) == sorted(many(n_rows))
    store.commit(LANE, {"a:0": 1}, {"a:0": 2}, dict.fromkeys(many(n_rows)))
    assert [key for chunk in store.scan(LANE + b"u:") for key in chunk] == []
    assert store.read([keys.redo(LANE)]) == [None]


@pytest.mark.parametrize("n_rows", [1, 2000])
def test_a_commit_from_another_position_is_fenced_and_changes_nothing(store, n_rows):
    store.commit(LANE, {}, {"a:0": 1}, {b"{g1:0}u:0": b"first"})
    with pytest.raises(Fenced):
        store.commit(LANE, {"a:0": 2}, {"a:0": 3}, many(n_rows))
    assert store.read([b"{g1:0}u:0", b"{g1:0}u:1"]) == [b"first", None]
    assert store.positions(LANE) == {"a:0": 1}


@pytest.mark.parametrize("n_rows", [1, 2000])
def test_a_refresh_writes_rows_at_the_same_positions_and_is_fenced_from_others(store, n_rows):
    store.commit(LANE, {}, {"a:0": 1}, {b"{g1:0}u:0": b"first"})
    store.refresh(LANE, {"a:0": 1}, many(n_rows))
    assert store.read(list(many(n_rows))) == list(many(n_rows).values())
    assert store.read([keys.redo(LANE)]) == [None]
    assert store.positions(LANE) == {"a:0": 1}
    store.commit(LANE, {"a:0": 1}, {"a:0": 2}, {b"{g1:0}u:0": b"second"})
    with pytest.raises(Fenced):
        store.refresh(LANE, {"a:0": 1}, many(n_rows))
    assert store.read([b"{g1:0}u:0"]) == [b"second"]


def test_lanes_do_not_see_each_other(store):
    other = keys.prefix("g1", 1)
    store.commit(LANE, {}, {"a:0": 1}, {})
    store.commit(other, {}, {"a:0": 9}, {})
    store.commit(LANE, {"a:0": 1}, {"a:0": 2}, {})
    assert (store.positions(LANE), store.positions(other)) == ({"a:0": 2}, {"a:0": 9})


def test_scan_takes_special_characters_literally(store):
    store.write({b"a*b[c]?\\d:1": b"x", b"aXb[c]?\\d:1": b"x"})
    assert [key for chunk in store.scan(b"a*b[c]?\\d:") for key in chunk] == [b"a*b[c]?\\d:1"]


@pytest.mark.redis
def test_the_second_owner_of_a_lane_fences_the_first(empty_server):
    a, b = RedisStore(empty_server.url), RedisStore(empty_server.url)
    a.commit(LANE, {}, {"a:0": 1}, {b"{g1:0}x": b"a1"})
    b.commit(LANE, {"a:0": 1}, {"a:0": 2}, {b"{g1:0}x": b"b2"})
    for rows in ({b"{g1:0}x": b"stale"}, many(2000)):
        with pytest.raises(Fenced):
            a.commit(LANE, {"a:0": 1}, {"a:0": 2}, rows)
        with pytest.raises(Fenced):
            a.refresh(LANE, {"a:0": 1}, rows)
    assert b.read([b"{g1:0}x", b"{g1:0}u:1"]) == [b"b2", None]
    a.commit(LANE, {"a:0": 2}, {"a:0": 3}, {b"{g1:0}x": b"a3"})
    with pytest.raises(Fenced):
        b.commit(LANE, {"a:0": 2}, {"a:0": 3}, {})


@pytest.mark.redis
def test_who_started_before_the_commit_point_of_another_is_fenced_before_the_seal(empty_server):
    a, b = RedisStore(empty_server.url), RedisStore(empty_server.url)
    a.commit(LANE, {}, {"a:0": 1}, many(2000, b"1"))
    for commit in (
        lambda at: b.commit(LANE, at, {"a:0": 99}, {b"{g1:0}u:0": b"b"}),
        lambda at: b.commit(LANE, at, {"a:0": 99}, many(2000, b"b")),
        lambda at: b.refresh(LANE, at, {b"{g1:0}u:0": b"b"}),
    ):
        at = b.positions(LANE)
        connection = a._commits._lane(LANE).main
        connection.expect(at)
        a._commits._write_redo(LANE, at, {"a:0": at["a:0"] + 1}, RowSet(many(2000, b"2")))
        with pytest.raises(Fenced):
            commit(at)
        assert b.read([b"{g1:0}u:0"]) != [b"b"]
        assert b.positions(LANE) == {"a:0": at["a:0"] + 1}
        assert b.read(list(many(2000))) == [b"2"] * 2000
        with pytest.raises(Fenced):
            a.commit(LANE, at, {"a:0": 99}, {})


def leave_redo(server, expected, new, *commands):
    client = server.client()
    client.mset({keys.redo_piece(LANE, "x", i): command for i, command in enumerate(commands)})
    client.set(keys.redo(LANE), orjson.dumps([expected, new, "x", len(commands)]))


@pytest.mark.redis
def test_a_redo_record_left_behind_is_applied_and_a_stale_one_is_dropped(empty_server):
    store = RedisStore(empty_server.url)
    store.commit(LANE, {}, {"a:0": 1}, {b"{g1:0}y": b"old"})
    mset = b"*3\r\n$4\r\nMSET\r\n$7\r\n{g1:0}x\r\n$1\r\n2\r\n"
    delete = b"*2\r\n$3\r\nDEL\r\n$7\r\n{g1:0}y\r\n"
    leave_redo(empty_server, {"a:0": 1}, {"a:0": 2}, mset, delete)
    assert RedisStore(empty_server.url).positions(LANE) == {"a:0": 2}
    assert store.read([b"{g1:0}x", b"{g1:0}y"]) == [b"2", None]
    leave_redo(empty_server, {"a:0": 1}, {"a:0": 2}, mset.replace(b"\r\n2\r\n", b"\r\n9\r\n"))
    assert RedisStore(empty_server.url).positions(LANE) == {"a:0": 2}
    assert store.read([b"{g1:0}x", keys.redo(LANE), keys.redo_piece(LANE, "x", 0)]) == [b"2", None, None]


row_blocks = st.dictionaries(st.integers(0, 2**64 - 1), st.binary(max_size=300), max_size=600)


@pytest.mark.redis
@settings(max_examples=20)
@given(row_blocks, st.dictionaries(st.sampled_from([b"{g1:0}a", b"{g1:0}b"]), st.none() | st.binary(max_size=9)))
def test_packed_rows_are_written_as_plain_ones_are(server, packed, single):
    server.client().flushall()
    rows = RowSet(single)
    values = np.frombuffer(b"".join(packed.values()), np.uint8)
    ends = np.cumsum([len(value) for value in packed.values()], dtype=np.int64)
    rows.blocks.append(RowBlock(b"{g1:0}u:", np.array(list(packed), np.uint64), values, ends))
    assert dict(rows) == {**single, **{b"{g1:0}u:%016x" % row: value for row, value in packed.items()}}
    assert len(rows) == len(single) + len(packed)
    memory, real = MemoryStore(), RedisStore(server.url)
    for store in (memory, real):
        store.commit(LANE, {}, {"a:0": 1}, rows)
    assert real.read(list(rows)) == memory.read(list(rows)) == list(rows.values())
    assert all(rows[key] == value for key, value in rows.items())
    real.close()


@pytest.mark.redis
def test_a_cluster_keeps_a_lane_whole_and_finds_every_key(empty_cluster):
    store = RedisStore(empty_cluster)
    lanes = [keys.prefix("g1", lane) for lane in range(8)]
    for lane in lanes:
        rows = {lane + b"u:%d" % i: b"%d" % i for i in range(700)}
        store.commit(lane, {}, {"a:0": 1}, rows)
    store.write({keys.generation(f"g{n}"): b"x" for n in range(6)})
    everything = [lane + b"u:%d" % i for i in (5, 600) for lane in lanes]
    assert store.read(everything) == [b"%d" % i for i in (5, 600) for _ in lanes]
    assert sum(len(chunk) for chunk in store.scan(b"headrace:generation:")) == 6
    assert len(store._nodes.clients()) == 3
    assert store.heartbeat(keys.members("g1"), "a", 1000) == ["a"]
    assert store.acquire(keys.owner(lanes[3]), "a", 1000)
    assert not RedisStore(empty_cluster).acquire(keys.owner(lanes[3]), "b", 1000)


commits = st.lists(
    st.tuples(st.booleans(), st.dictionaries(st.sampled_from("abcd"), st.none() | st.binary(max_size=3))), max_size=8
)


@pytest.mark.redis
@settings(max_examples=25)
@given(commits)
def test_redis_answers_like_the_memory_store(server, sequence):
    server.client().flushall()
    memory, real = MemoryStore(), RedisStore(server.url)
    at = {}
    for step, (right, changes) in enumerate(sequence):
        rows = {LANE + name.encode(): value for name, value in changes.items()}
        outcomes = []
        for store in (memory, real):
            try:
                store.commit(LANE, at if right else {"a:0": 99}, {"a:0": step}, rows)
                outcomes.append("done")
            except Fenced:
                outcomes.append("fenced")
        assert outcomes[0] == outcomes[1]
        at = memory.positions(LANE)
    names = [LANE + name.encode() for name in "abcd"]
    assert real.read(names) == memory.read(names)
    assert real.positions(LANE) == at
    real.close()


WRITER = """
import sys
from state.store.redis_store import RedisStore
from state.store.contract import Fenced
store = RedisStore(sys.argv[1])
lane = b"{g1:0}"
at = store.positions(lane).get("a:0", 0)
print(at, flush=True)
try:
    while True:
        n = 3000 if at % 2 else 40
        rows = {lane + b"u:%d" % i: b"%d" % (at + 1) for i in range(n)}
        store.commit(lane, {"a:0": at} if at else {}, {"a:0": at + 1}, rows)
        at += 1
except Fenced:
    print("fenced", flush=True)
"""


def writer(url):
    return subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)


def assert_rows_belong_to_positions(store):
    """Every row was last written by the newest commit at or before the positions that writes it."""
    at = store.positions(LANE)["a:0"]
    newest_large = at - at % 2  # commits with an even number write 3,000 rows, the others 40
    values = store.read([LANE + b"u:%d" % i for i in range(3000)])
    assert set(values[:40]) == {b"%d" % at}
    assert set(values[40:]) == ({b"%d" % newest_large} if newest_large else {None})


@pytest.mark.redis
def test_a_writer_killed_at_any_moment_leaves_rows_and_positions_of_one_commit(empty_server):
    store = RedisStore(empty_server.url)
    for round_no in range(6):
        with writer(empty_server.url) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.15 + 0.037 * round_no)
            os.kill(process.pid, signal.SIGKILL)
        assert_rows_belong_to_positions(store)


@pytest.mark.redis
def test_a_paused_owner_that_wakes_after_a_takeover_writes_nothing(empty_server):
    store = RedisStore(empty_server.url)
    for round_no in range(4):
        with writer(empty_server.url) as zombie:
            assert zombie.stdout is not None
            zombie.stdout.readline()
            time.sleep(0.15 + 0.023 * round_no)
            os.kill(zombie.pid, signal.SIGSTOP)
            try:
                time.sleep(0.05)  # what the zombie sent before it was stopped is executed first
                at = store.positions(LANE)["a:0"]
                rows = {LANE + b"u:%d" % i: b"%d" % (at + 1) for i in range(3000 if at % 2 else 40)}
                store.commit(LANE, {"a:0": at}, {"a:0": at + 1}, rows)
            except Exception:
                zombie.kill()  # a stopped process would be waited for without end
                raise
            os.kill(zombie.pid, signal.SIGCONT)
            assert zombie.stdout.readline() == "fenced\n"
        assert store.positions(LANE) == {"a:0": at + 1}
        assert_rows_belong_to_positions(store)


@pytest.mark.redis
@pytest.mark.parametrize("name", ["a b", "x" * 100, "日本" * 20])
def test_the_embedded_redis_listens_on_a_socket_of_its_owner_only(tmp_path, name):
    with EmbeddedRedis(tmp_path / name) as server:
        assert server.url.startswith("unix://")
        assert server.client().config_get("port")["port"] == "0"
        held = {str(fd.resolve()) for fd in Path(f"/proc/{server.process.pid}/fd").iterdir()}  # some are just closing
        tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
        listening = [line.split() for table in tables for line in table.splitlines()[1:]]
        assert not [line for line in listening if line[3] == "0A" and f"socket:[{line[9]}]" in held]
        assert server.socket.stat().st_mode & 0o077 == 0
        assert server.socket.parent.stat().st_mode & 0o077 == 0
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
        store = RedisStore(server.url)
        store.commit(LANE, {}, {"a:0": 1}, {b"{g1:0}x": b"1"})
        assert store.read([b"{g1:0}x"]) == [b"1"]
    assert server.socket.parent.exists() == (server.socket.parent == tmp_path / name)


@pytest.mark.redis
def test_a_folder_too_deep_for_any_socket_is_named(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(RedisMissing, match="TMPDIR"):
        EmbeddedRedis(tmp_path / ("y" * 100))
    assert list(deep.iterdir()) == []


@pytest.mark.redis
def test_a_redis_that_restarts_keeps_its_rows_and_the_store_recovers(tmp_path):
    with EmbeddedRedis(tmp_path, options={"appendfsync": "always"}) as server:
        store = RedisStore(server.url, timeout_s=2)
        store.commit(LANE, {}, {"a:0": 1}, many(700))
        server.kill()
        with pytest.raises(StoreUnavailable, match="Redis at unix:/"):
            store.commit(LANE, {"a:0": 1}, {"a:0": 2}, {})
        server.start()
        assert store.positions(LANE) == {"a:0": 1}
        store.commit(LANE, {"a:0": 1}, {"a:0": 2}, {})
        assert store.read(list(many(700))) == list(many(700).values())


@pytest.mark.redis
def test_a_full_redis_refuses_the_commit_whole(tmp_path):
    with EmbeddedRedis(tmp_path, options={"maxmemory": "3mb"}) as server:
        store = RedisStore(server.url)
        store.commit(LANE, {}, {"a:0": 1}, {b"{g1:0}x": b"1"})
        for n_rows in (400, 3000):
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                store.commit(LANE, {"a:0": 1}, {"a:0": 2}, {b"{g1:0}x": b"2", **many(n_rows, b"y" * 20_000)})
        assert store.positions(LANE) == {"a:0": 1}
        assert store.read([b"{g1:0}x"]) == [b"1"]


@pytest.mark.redis
def test_a_redis_that_ends_at_once_is_reported_with_its_last_words(tmp_path):
    with (
        EmbeddedRedis(tmp_path / "a", {"port": str(free_port())}) as server,
        pytest.raises(RedisMissing, match="ended"),
    ):
        EmbeddedRedis(tmp_path / "b", {"port": port_of(server)}).start()
