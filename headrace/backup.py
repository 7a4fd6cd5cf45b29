"""Copies of an installation: log, rows, anchors and keys, taken while it runs, and put into an empty data folder.

Rows and positions are from one moment (a snapshot of Redis), and the log is copied after them: what it holds beyond the
positions is folded at the next start. A copy without its manifest, which is written last, is one that was cut short.
"""

import hashlib
import shutil
import sqlite3
import time
from contextlib import ExitStack, closing
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import orjson
import redis

from headrace.run_file import AlreadyRunning, held, is_running
from headrace.settings import Settings
from state.embedded_redis import EmbeddedRedis
from state.id_key import FILE as ID_KEY

MANIFEST = "backup.json"
LOG, ROWS, KEYS, ANCHORS = "log.sqlite", "rows.rdb", "keys.json", "anchors"
SNAPSHOT = "dump.rdb"
BASE, INCREMENTS = "appendonly.aof.1.base.rdb", "appendonly.aof.manifest"
"""Redis starts from an append-only file whose base is a snapshot."""
LOOK_S = 0.05


class BackupFailed(Exception):
    """There is nothing that can be copied, or no place for it; the message has the reason."""


def back_up(settings: Settings, target: Path) -> dict[str, Any]:
    """Copy everything of this machine that cannot be made again into a new folder; return the manifest.

    What is kept elsewhere is listed under `elsewhere`. Raises BackupFailed.
    """
    folder = settings.data_dir.absolute()
    if target.exists() and any(target.iterdir()):
        raise BackupFailed(f"{target} is not empty: choose a new folder for each backup")
    if not folder.is_dir():
        raise BackupFailed(f"there is no data folder {folder}")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    elsewhere = [_copy_rows(settings, folder, target), _copy_log(settings, target), *_copy_files(settings, target)]
    files = {str(path.relative_to(target)): _digest(path) for path in sorted(target.rglob("*")) if path.is_file()}
    manifest = {
        "version": installed("headrace"), "created_ms": time.time_ns() // 1_000_000, "folder": str(folder),
        "files": files, "elsewhere": [line for line in elsewhere if line],
    }  # fmt: skip
    (target / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return manifest


def restore(settings: Settings, source: Path) -> dict[str, Any]:
    """Put a backup into the data folder, which must be empty; return its manifest. Raises BackupFailed."""
    manifest = _checked(source)
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(folder):
            there = sorted(path.name for path in folder.iterdir() if path.name != "up.lock")
            if there:
                raise BackupFailed(
                    f"the data folder {folder} is not empty ({', '.join(there[:5])}): move it away first"
                )
            for name in manifest["files"]:
                path = folder / name if name != ROWS else _place_of_rows(folder)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, path)
                path.chmod(0o600)
    except AlreadyRunning as error:
        raise BackupFailed(str(error)) from None
    return manifest


def _copy_rows(settings: Settings, folder: Path, target: Path) -> str:
    """Copy a snapshot of the Redis that `headrace up` keeps in the folder; return what is not copied, "" if all is."""
    rows = folder / "redis"
    with ExitStack() as stack:
        if is_running(folder):
            client: Any = stack.enter_context(closing(redis.Redis.from_url(settings.redis_url)))
        elif rows.is_dir() and not settings.redis_url:
            stack.enter_context(held(folder))
            client = stack.enter_context(closing(stack.enter_context(EmbeddedRedis(rows)).client()))
        else:
            client = None
        if client is None or client.config_get("dir")["dir"] != str(rows):
            return "rows: Redis is your own; restore its backup, or let a flow fold the log again"
        _snapshot(client)
        shutil.copyfile(rows / SNAPSHOT, target / ROWS)
        (rows / SNAPSHOT).unlink()
    return ""


def _snapshot(client: Any) -> None:
    """Write all rows of one moment into SNAPSHOT, beside the append-only file."""
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        time.sleep(LOOK_S)
    client.bgsave()
    while (found := client.info("persistence"))["rdb_bgsave_in_progress"]:
        time.sleep(LOOK_S)
    if found["rdb_last_bgsave_status"] != "ok":
        raise BackupFailed("Redis could not write its snapshot; its log is redis.log in the folder of its data")


def _copy_log(settings: Settings, target: Path) -> str:
    kind, _, path = settings.log_address.partition(":")
    if kind != "sqlite":
        return "log: it is in Kafka, which replicates it"
    if not Path(path).exists():
        raise BackupFailed(f"there is no log {path}")
    with closing(sqlite3.connect(path)) as log, closing(sqlite3.connect(target / LOG)) as copy:
        log.backup(copy)
    return ""


def _copy_files(settings: Settings, target: Path) -> list[str]:
    elsewhere = []
    key = settings.data_dir / ID_KEY
    if settings.id_key.get_secret_value() or not key.exists():
        elsewhere.append("the key of ids: it is a setting, HEADRACE_ID_KEY")
    else:
        shutil.copyfile(key, target / ID_KEY)
    if settings.keys_path.exists():
        shutil.copyfile(settings.keys_path, target / KEYS)
    if settings.anchors_url:
        elsewhere.append(f"anchors: they are in {settings.anchors_url}")
    elif settings.anchors_dir.is_dir():
        shutil.copytree(settings.anchors_dir, target / ANCHORS)
    return elsewhere


def _checked(source: Path) -> dict[str, Any]:
    try:
        manifest = dict(orjson.loads((source / MANIFEST).read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        raise BackupFailed(f"{source} is no backup, or one that was cut short: it has no {MANIFEST}") from None
    for name, digest in manifest["files"].items():
        if not (source / name).is_file() or _digest(source / name) != digest:
            raise BackupFailed(f"{source / name} is not as it was when the backup was made")
    return manifest


def _place_of_rows(folder: Path) -> Path:
    home = folder / "redis" / "appendonlydir"
    home.mkdir(parents=True)
    home.parent.chmod(0o700)
    (home / INCREMENTS).write_text(f"file {BASE} seq 1 type b\n")
    return home / BASE


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
