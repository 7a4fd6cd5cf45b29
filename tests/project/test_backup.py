"""A backup is taken while everything runs, and an empty machine that restores it has the same rows and answers."""

import json
import subprocess
import threading

import pytest
import redis
from helpers.up import HEADRACE, Up, run, views, wait_for

from flows.log.sqlite_log import SqliteLog
from headrace.backup import ROWS, BackupFailed, restore
from headrace.settings import Settings
from state.embedded_redis import EmbeddedRedis
from state.rows import keys
from state.store.contract import decode_positions

PASSING = (b"owner", b"headrace:flows:", keys.ANCHOR_NIGHT)
"""Keys of processes at work."""


def rows_of(url):
    store = redis.Redis.from_url(url)
    found = {key: store.dump(key) for key in store.scan_iter()}
    return {key: value for key, value in found.items() if not any(part in key for part in PASSING)}


def answers(up):
    asked = [{"user": f"u{n}", "count": 5} for n in range(5)] + [{"count": 5, "strategy": "popular"}]
    return [[(one["item"], one["reason"]) for one in up.recommend(**request)["items"]] for request in asked]


def has_folded(up):
    return all(lane["lag"] == 0 for lane in run(up, "status")["generations"]["g1"]["lanes"])


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.timeout(600)
def test_an_empty_machine_that_restores_a_backup_has_the_same_rows_and_answers(tmp_path):
    one, two = Up(tmp_path / "one"), Up(tmp_path / "two")
    for up in (one, two):
        up.environment["HEADRACE_ALLOW_ANONYMOUS"] = "true"  # beside the key that is backed up
    with one as up:
        up.events(*views(300))
        run(up, "keys", "add", "shop")
        version = run(up, "anchor")["version"]
        wait_for(lambda: up.recommend(user="u1")["anchor"] == version)

        posting, n_posted = threading.Event(), []

        def post_on():
            while not posting.is_set():
                n_posted.append(up.events({"type": "view", "user": "busy", "item": f"b{len(n_posted) % 9}"}))

        poster = threading.Thread(target=post_on)
        poster.start()
        wait_for(lambda: len(n_posted) > 20)
        run(up, "backup", str(tmp_path / "moving"))
        posting.set()
        poster.join()
        wait_for(lambda: has_folded(up))
        assert run(up, "backup", str(tmp_path / "quiet"))["elsewhere"] == [
            "the key of ids: it is a setting, HEADRACE_ID_KEY"
        ]
        rows, listed = rows_of(up.where["redis_url"]), answers(up)

    assert run(two, "restore", str(tmp_path / "quiet"))["version"]
    with two:
        assert rows_of(two.where["redis_url"]) == rows
        wait_for(lambda: two.recommend(user="u1")["anchor"] == version)
        assert answers(two) == listed
        assert [key["name"] for key in run(two, "keys")["keys"]] == ["shop"]
        two.events({"type": "view", "user": "later", "item": "i1"})
        wait_for(lambda: two.recommend(user="later")["fallback"] == "personalised")

    restore(Settings(data_dir=tmp_path / "three"), tmp_path / "moving")
    log = SqliteLog(tmp_path / "three" / "log.sqlite")
    with EmbeddedRedis(tmp_path / "three" / "redis") as server:
        positions = decode_positions(server.client().get(keys.positions(keys.prefix("g1", 0))))
        assert all(0 <= at <= log.end()[stream] for stream, at in positions.items())
        assert positions["product-views:0"] > 300
    log.close()


@pytest.mark.redis
def test_a_backup_that_is_damaged_cut_short_or_has_no_room_is_refused(tmp_path):
    folder, copy = tmp_path / "data", tmp_path / "copy"
    SqliteLog(folder / "log.sqlite").close()
    with EmbeddedRedis(folder / "redis") as server:
        server.client().set("row", "value")
    environment = Up(folder).environment

    def tried(*arguments):
        done = subprocess.run([*HEADRACE, *arguments, "--json"], env=environment, capture_output=True, text=True,
                              timeout=120, check=False)  # fmt: skip
        return done.returncode, done.stderr.strip()

    assert tried("backup", str(copy)) == (0, "")  # of an installation that is not running
    assert "is not empty" in tried("backup", str(copy))[1]
    assert "move it away first" in tried("restore", str(copy))[1]
    fresh = Settings(data_dir=tmp_path / "fresh")
    (copy / ROWS).write_bytes(b"damaged")
    with pytest.raises(BackupFailed, match="is not as it was"):
        restore(fresh, copy)
    (copy / "backup.json").unlink()
    with pytest.raises(BackupFailed, match="no backup, or one that was cut short"):
        restore(fresh, copy)
    assert json.dumps(sorted(path.name for path in (tmp_path / "fresh").glob("*"))) == "[]"
