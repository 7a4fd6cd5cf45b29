"""Anchors in a folder and in an object store: whole or not there, compared with their checksums, few on a machine."""

import functools
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError
from helpers.s3_server import S3Server

from headrace.torture.faulty_proxy import FaultyProxy
from state.anchor import FILES, MANIFEST, METRICS, Anchor, AnchorDamaged, load_anchor, save_anchor
from state.anchors import remote_anchors
from state.anchors.contract import AnchorMissing, AnchorsUnavailable
from state.anchors.copies import ABANDONED_S, Copies
from state.anchors.fetcher import AnchorFetcher
from state.anchors.folder_anchors import FolderAnchors
from state.anchors.open_anchors import open_anchors
from state.anchors.remote_anchors import RemoteAnchors
from state.ports import free_port
from state.settings import BadSettings, StoreSettings

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:
        yield server


@pytest.fixture
def remote(s3, tmp_path):
    """Return a maker of stores at one address, each with copies in a folder of its own."""
    s3.address = f"s3://shop/{tmp_path.name}"

    def make(name="copies", endpoint=s3.url, timeout_s=20.0):
        return RemoteAnchors(s3.address, tmp_path / name, {"endpoint_url": endpoint}, timeout_s)

    return make


@pytest.fixture(params=["folder", "s3"])
def stores(request, remote, tmp_path):
    """Return the store as the trainer has it, and as another machine has it."""
    if request.param == "folder":
        return FolderAnchors(tmp_path / "anchors"), FolderAnchors(tmp_path / "anchors")
    return remote("trainer"), remote("server")


def write(store, version="a1"):
    """Write an anchor and publish it."""
    items, one = np.sort(np.arange(1, 4, dtype=np.uint64)), np.eye(3, dtype=np.float32)
    anchor = Anchor(version, ["a", "b", "c"], items, one, one, 2.0, np.ones(32))
    save_anchor(store.folder, anchor, lambda path: path.write_bytes(b"index" * 50_000), {"recall@20": 0.5}, {})
    store.publish(version)


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.process
def test_what_one_machine_publishes_another_one_lists_fetches_and_reads(stores):
    trainer, server = stores
    trainer.prepare()
    assert server.versions() == []
    write(trainer, "a2")
    write(trainer, "a1")
    assert server.versions() == ["a1", "a2"]
    assert server.read_json("a2", METRICS) == {"recall@20": 0.5}
    folder = server.fetch("a2")
    assert everything(folder) == everything(trainer.folder / "a2")
    assert set(everything(folder)) == {*FILES, MANIFEST}
    assert (server.here("a2"), load_anchor(folder).item_ids) == (folder, ["a", "b", "c"])


@pytest.mark.process
def test_an_anchor_that_is_not_there_is_missing_for_every_question(stores):
    _, server = stores
    for ask in (server.fetch, server.remove, lambda version: server.read_json(version, MANIFEST)):
        with pytest.raises(AnchorMissing, match="a9"):
            ask("a9")
        with pytest.raises(AnchorMissing, match="no name"):
            ask("../a9")
    assert server.here("a9") is None


@pytest.mark.process
def test_a_removed_anchor_is_gone_for_everybody(stores):
    trainer, server = stores
    write(trainer, "a1")
    write(trainer, "a2")
    server.remove("a1")
    assert trainer.versions() == ["a2"]
    with pytest.raises(AnchorMissing):
        server.read_json("a1", MANIFEST)


@pytest.mark.process
def test_an_upload_that_was_cut_short_is_no_anchor_until_it_is_completed(s3, remote):
    trainer, server = remote("trainer"), remote("server")
    write(trainer)
    s3.files.rm_file(f"{s3.address}/a1/{MANIFEST}")
    assert len(s3.names()) == len(FILES)
    assert server.versions() == []
    with pytest.raises(AnchorMissing):
        server.fetch("a1")
    trainer.publish("a1")
    assert server.versions() == ["a1"]
    load_anchor(server.fetch("a1"))


@pytest.mark.process
@pytest.mark.parametrize("broken", ["corrupted", "missing"])
def test_a_file_that_is_not_what_was_published_is_named_and_nothing_is_kept(s3, remote, broken):
    write(remote("trainer"))
    path = f"{s3.address}/a1/whitened.npy"
    if broken == "missing":
        s3.files.rm_file(path)
    else:
        data = bytearray(s3.files.cat_file(path))
        data[-1] ^= 1
        s3.files.pipe_file(path, bytes(data))
    server = remote("server")
    with pytest.raises(AnchorDamaged, match=r"anchor a1: whitened\.npy .*shop/"):
        server.fetch("a1")
    assert list(server.folder.iterdir()) == []


@pytest.mark.process
def test_a_manifest_cannot_name_a_file_elsewhere(s3, remote, tmp_path):
    write(remote("trainer"))
    manifest = json.loads(s3.files.cat_file(f"{s3.address}/a1/{MANIFEST}"))
    manifest["sha256"]["../../outside"] = manifest["sha256"]["gram.npy"]
    s3.files.pipe_file(f"{s3.address}/a1/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(AnchorDamaged, match="outside"):
        remote("server").fetch("a1")
    with pytest.raises(AnchorMissing, match="no name"):
        remote("server").fetch("../a1")
    assert not (tmp_path / "outside").exists()


def fetch(folder, url, address, barrier, results):
    store = RemoteAnchors(address, folder, {"endpoint_url": url})
    barrier.wait()
    results.put(everything(store.fetch("a1")))


@pytest.mark.process
def test_processes_that_fetch_at_the_same_time_all_get_the_whole_anchor(s3, remote, tmp_path):
    trainer = remote("trainer")
    write(trainer)
    spawn, n = multiprocessing.get_context("spawn"), 3
    barrier, results = spawn.Barrier(n), spawn.Queue()
    arguments = (tmp_path / "shared", s3.url, s3.address, barrier, results)
    processes = [spawn.Process(target=fetch, args=arguments) for _ in range(n)]
    for process in processes:
        process.start()
    assert [results.get(timeout=120) for _ in range(n)] == [everything(trainer.folder / "a1")] * n
    for process in processes:
        process.join()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["a1"]


@pytest.mark.process
def test_a_store_that_hangs_or_is_gone_is_unavailable_and_comes_back(s3, remote):
    write(remote("trainer"))
    with FaultyProxy(s3.url) as proxy:
        server = remote("server", f"http://127.0.0.1:{proxy.port}", timeout_s=1.0)
        for fault in ("swallow", "cut"):
            proxy.play(fault)
            for ask in (server.versions, lambda: server.fetch("a1")):
                with pytest.raises(AnchorsUnavailable):
                    ask()
        proxy.play(None)
        server = remote("server", f"http://127.0.0.1:{proxy.port}")
        assert load_anchor(server.fetch("a1")).version == "a1"


def test_a_copy_under_way_is_no_anchor_and_one_that_was_left_behind_goes(tmp_path):
    copies = Copies(tmp_path)
    work = copies.begin("a1")
    (work / MANIFEST).write_text("{}")
    assert copies.find("a1") is None
    assert RemoteAnchors("memory://anchors", tmp_path).here("a1") is None
    copies.keep()
    assert work.exists()
    for path in (work / MANIFEST, work):
        os.utime(path, (time.time() - ABANDONED_S - 60,) * 2)
    copies.keep()
    assert not work.exists()


def test_the_copies_kept_are_those_named_and_the_one_used_last_before(tmp_path):
    copies = Copies(tmp_path)
    for age, version in enumerate(["a5", "a1", "a2", "a3", "a4"]):
        work = copies.begin(version)
        (work / MANIFEST).write_text("{}")
        copies.complete(work, version)
        os.utime(tmp_path / version / MANIFEST, (1_000_000 + age,) * 2)
    assert copies.find("a1") is not None  # it is in use now
    copies.keep("a4", "a5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a1", "a4", "a5"]


def until(result, seconds=60):
    deadline = time.monotonic() + seconds
    while (found := result()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


@pytest.mark.process
def test_a_fetcher_tries_again_until_the_store_is_back(s3, remote):
    write(remote("trainer"))
    with FaultyProxy(s3.url) as proxy:
        proxy.play("cut")
        fetcher = AnchorFetcher(remote("server", f"http://127.0.0.1:{proxy.port}"))
        assert fetcher.load("a1", load_anchor) is None
        until(lambda: fetcher.folder_of("a1") or fetcher.failed("a1") or None)
        assert fetcher.failed("a1")
        proxy.play(None)
        assert until(lambda: fetcher.load("a1", load_anchor)).version == "a1"
        assert not fetcher.failed("a1")


@pytest.mark.process
def test_a_fetcher_fetches_a_damaged_copy_once_more_and_then_gives_up(remote):
    write(remote("trainer"))
    server = remote("server")
    fetcher = AnchorFetcher(server)
    (server.fetch("a1") / "gram.npy").write_bytes(b"")
    assert until(lambda: fetcher.load("a1", load_anchor)).version == "a1"
    (server.fetch("a1") / "gram.npy").write_bytes(b"")
    with pytest.raises(AnchorDamaged, match=r"gram\.npy"):
        fetcher.load("a1", load_anchor)


@pytest.mark.process
def test_a_fetcher_gives_up_an_anchor_whose_original_is_damaged(s3, remote):
    write(remote("trainer"))
    s3.files.pipe_file(f"{s3.address}/a1/gram.npy", b"")
    fetcher = AnchorFetcher(remote("server"))
    with pytest.raises(AnchorDamaged, match=r"gram\.npy"):
        until(lambda: fetcher.load("a1", load_anchor))


@pytest.mark.parametrize(
    ("url", "kind", "folder"),
    [("", FolderAnchors, "data/anchors"), ("/mnt/shop", FolderAnchors, "/mnt/shop"),
     ("file:///mnt/a%20shop", FolderAnchors, "/mnt/a shop"), ("s3://shop/x", RemoteAnchors, "data/anchor-copies")],
)  # fmt: skip
def test_the_address_decides_where_anchors_are(url, kind, folder):
    store = open_anchors(StoreSettings(anchors_url=url))
    assert (type(store), str(store.folder)) == (kind, folder)


@pytest.mark.parametrize(("url", "remedy"), [("nowhere://x", "nowhere"), ("gs://shop/x", "gcsfs")])
def test_an_address_nobody_here_knows_is_refused_with_what_it_needs(url, remedy):
    with pytest.raises(BadSettings, match="HEADRACE_ANCHORS_URL") as refused:
        open_anchors(StoreSettings(anchors_url=url))
    assert remedy in str(refused.value)
    assert "headrace[s3]" not in str(refused.value)


@pytest.mark.parametrize("url", ["s3:/shop/x", "s3:shop/x", "file:/mnt/shop", "gs:/shop"])
def test_an_address_without_its_slashes_is_no_folder(url):
    with pytest.raises(ValueError, match="has // after its colon"):
        StoreSettings(anchors_url=url)
    assert StoreSettings(anchors_url=f"./{url}").anchors_url == f"./{url}"


def settings_command(config):
    environment = os.environ | {"HEADRACE_ANCHORS_CONFIG": json.dumps(config)}
    command = [sys.executable, "-m", "headrace", "settings", "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.process
def test_secrets_of_the_store_are_not_shown():
    config = {
        "key": "shop", "secret": "s3cr3t", "account_key": "s3cr3t", "client_kwargs": {"aws_session_token": "s3cr3t"},
        "more": [{"password": "s3cr3t"}],
    }  # fmt: skip
    shown = settings_command(config).stdout
    assert "s3cr3t" not in shown
    assert json.loads(shown)["anchors_config"]["value"]["key"] == "shop"


@pytest.mark.process
@pytest.mark.parametrize("config", [["s3cr3t"], "s3cr3t"])
def test_settings_of_the_store_that_are_none_are_refused_and_not_shown(config):
    done = settings_command(config)
    assert (done.returncode, done.stdout) == (2, "")
    assert "HEADRACE_ANCHORS_CONFIG" in done.stderr
    assert "s3cr3t" not in done.stderr


@pytest.mark.process
def test_a_bucket_that_is_not_there_is_no_empty_store(s3, tmp_path):
    store = RemoteAnchors("s3://no-such-bucket/x", tmp_path, {"endpoint_url": s3.url}, 20)
    for ask in (store.prepare, store.versions):
        with pytest.raises(AnchorsUnavailable, match="s3://no-such-bucket/x: its bucket does not exist"):
            ask()


@pytest.mark.process
def test_a_store_is_prepared_and_nothing_of_it_stays(s3, remote):
    store = remote()
    assert store.versions() == []
    store.prepare()
    assert s3.names() == []


def test_a_port_that_refuses_connections_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    store = RemoteAnchors("s3://shop/x", tmp_path, {"endpoint_url": f"http://127.0.0.1:{free_port()}"}, 60)
    with pytest.raises(AnchorsUnavailable, match="Could not connect") as away:
        store.prepare()
    assert isinstance(away.value.__cause__, EndpointConnectionError)
    assert store._files.config_kwargs["retries"]["total_max_attempts"] == 2


@pytest.mark.parametrize(("error", "attempts"), [(PermissionError("denied"), 1), (OSError("reset"), 3)])
def test_an_upload_is_repeated_unless_it_is_not_allowed(monkeypatch, tmp_path, error, attempts):
    store, calls = RemoteAnchors("memory://anchors", tmp_path), []

    def put_file(*arguments, **options):
        calls.append(arguments)
        raise error

    monkeypatch.setattr(remote_anchors, "UPLOADS", 3)
    monkeypatch.setattr(remote_anchors, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(store._files, "put_file", put_file)
    with pytest.raises(AnchorsUnavailable, match=str(error)):
        write(store)
    assert len(calls) == attempts


def test_a_file_system_with_folders_has_them_made(tmp_path):
    url = f"local://{tmp_path}/deep/anchors"
    trainer, server = RemoteAnchors(url, tmp_path / "trainer"), RemoteAnchors(url, tmp_path / "server")
    with pytest.raises(AnchorsUnavailable, match="the address does not exist"):
        server.versions()
    trainer.prepare()
    assert server.versions() == []
    write(trainer)
    assert server.versions() == ["a1"]
    assert load_anchor(server.fetch("a1")).version == "a1"


def test_anchors_are_fetched_over_http(tmp_path):
    write(FolderAnchors(tmp_path / "anchors"))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            store = RemoteAnchors(f"http://127.0.0.1:{server.server_port}/anchors", tmp_path / "copies")
            assert store.versions() == ["a1"]
            assert load_anchor(store.fetch("a1")).version == "a1"
            with pytest.raises(AnchorMissing, match="a2"):
                store.fetch("a2")
        finally:
            server.shutdown()


def test_a_copy_of_another_user_counts(monkeypatch, tmp_path):
    def denied(path):
        raise PermissionError(path)

    copies = Copies(tmp_path)
    work = copies.begin("a1")
    (work / MANIFEST).write_text("{}")
    copies.complete(work, "a1")
    monkeypatch.setattr(os, "utime", denied)
    assert copies.find("a1") == tmp_path / "a1"
    assert copies.find("a2") is None


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / ("x" * 300)):
        store = FolderAnchors(folder)
        assert store.here("a1") is None
        for ask in (store.prepare, store.versions, lambda s=store: s.fetch("a1"), lambda s=store: s.remove("a1")):
            with pytest.raises(AnchorsUnavailable, match=str(folder)):
                ask()


def test_an_absent_folder_is_made_by_the_trainer_alone(tmp_path):
    store = open_anchors(StoreSettings(anchors_url=str(tmp_path / "anchors")))
    with pytest.raises(AnchorsUnavailable, match="anchors: No such file"):
        store.versions()
    store.prepare()
    assert store.versions() == []
    assert list(store.folder.iterdir()) == []
    assert open_anchors(StoreSettings(data_dir=tmp_path / "data")).versions() == []  # of a first day
