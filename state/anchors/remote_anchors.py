"""Anchors in an object store, copied to this machine: any address that fsspec knows.

    <address>/<version>/<file>            every file that the manifest names, then
    <address>/<version>/manifest.json     last: a version without it is no anchor, but an upload that was cut short

A download goes into a folder of its own, is compared with the checksums of the manifest, and gets its name last.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import fsspec
import orjson
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from state.anchor import MANIFEST, AnchorDamaged, read_manifest
from state.anchors.contract import VERSION, AnchorMissing, AnchorsUnavailable
from state.anchors.copies import Copies
from state.secrets import hide_password

UPLOADS, LONGEST_PAUSE_S = 5, 10.0
"""How often a file is uploaded before the training gives up."""
DOWNLOADS = 2
"""How often a file is downloaded that is not what its checksum says."""

S3_KINDS = {"s3", "s3a"}
BUCKET_KINDS = S3_KINDS | {"gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"}
"""Protocols whose addresses begin with a bucket, which has to be there, and which know no folders."""
ATTEMPTS = 2
"""Of botocore, which else calls a closed port for ten seconds; whoever waits for an anchor tries again anyway."""
PROBE = ".probe"

T = TypeVar("T")


class _Progress(fsspec.Callback):  # type: ignore[misc]
    """Notes when bytes last moved."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_s = time.monotonic()

    def call(self, *args: Any, **kwargs: Any) -> None:
        self.moved_s = time.monotonic()


class RemoteAnchors:
    """An `AnchorStore` at an fsspec address, with copies in a folder on this machine."""

    def __init__(
        self, url: str, folder: Path, config: Mapping[str, Any] | None = None, timeout_s: float = 60.0
    ) -> None:
        """`config` goes to the file system of the address as it is; credentials may come from the environment.

        `timeout_s`: so long without a byte, and the store counts as away. Raises ImportError where the package of the
        address is not installed, ValueError where nobody knows its protocol.
        """
        self.name, self.folder = hide_password(url), folder
        self._copies, self._timeout_s = Copies(folder), timeout_s
        protocol, options = url.partition("://")[0], {"use_listings_cache": False, **(config or {})}
        if protocol in S3_KINDS:
            retries = {"retries": {"total_max_attempts": ATTEMPTS}}
            options["config_kwargs"] = {**retries, **options.get("config_kwargs", {})}
        self._files, root = fsspec.core.url_to_fs(url, **options)
        self._root, self._in_bucket = root.rstrip("/"), protocol in BUCKET_KINDS

    def prepare(self) -> None:
        """Write an object and remove it, so that a training begins only where its anchor can be kept."""

        def probe(_: _Progress) -> None:
            path = f"{self._root}/{PROBE}"
            if not self._in_bucket:
                self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(path, b"can be written")
            with contextlib.suppress(FileNotFoundError, PermissionError):  # another training; no right to delete
                self._files.rm_file(path)

        with self._named_absence():
            self._run("write", probe)

    def versions(self) -> list[str]:
        """Return the versions that are published, oldest first. Raises AnchorsUnavailable."""

        def look(_: _Progress) -> list[str]:
            self._files.invalidate_cache()
            names = sorted(path.rstrip("/").rpartition("/")[2] for path in self._folders())
            return [n for n in names if VERSION.fullmatch(n) and self._files.exists(self._path(n, MANIFEST))]

        with self._named_absence():
            return self._run("list the anchors", look)

    def _folders(self) -> list[str]:
        """Return what is at the address; nothing where only its bucket is there."""
        try:
            return list(self._files.ls(self._root, detail=False))
        except FileNotFoundError:
            if not self._in_bucket:
                raise
            with contextlib.suppress(PermissionError):  # may list no more than the address
                self._files.ls(self._root.partition("/")[0], detail=False)
            return []

    @contextlib.contextmanager
    def _named_absence(self) -> Iterator[None]:
        try:
            yield
        except AnchorMissing:
            what = "its bucket" if self._in_bucket else "the address"
            raise AnchorsUnavailable(f"{self.name}: {what} does not exist") from None

    def read_json(self, version: str, file: str) -> dict[str, Any]:
        """Return a JSON file of an anchor, without the rest of it. Raises AnchorMissing, AnchorDamaged."""
        return _json(self._read(version, file), version, file)

    def publish(self, version: str) -> None:
        """Upload the anchor in `folder`, its manifest last. Raises AnchorsUnavailable after several attempts a file."""
        path = self.folder / version
        if not self._in_bucket:
            self._run(f"upload {version}", lambda _: self._files.makedirs(f"{self._root}/{version}", exist_ok=True))
        for name in (*read_manifest(path)["sha256"], MANIFEST):
            self._upload(path / name, version, name)

    def here(self, version: str) -> Path | None:
        """Return the folder of the copy on this machine."""
        return self._copies.find(version)

    def fetch(self, version: str) -> Path:
        """Return the folder of the copy, which is downloaded where there is none. Raises as the contract says."""
        path = self.here(version)
        if path is not None:
            return path
        manifest = self._read(version, MANIFEST)
        with self._copying(version) as work:
            for name, digest in _json(manifest, version, MANIFEST)["sha256"].items():
                self._download(version, name, digest, work)
            (work / MANIFEST).write_bytes(manifest)
            return self._copies.complete(work, version)

    def discard(self, version: str) -> bool:
        """Drop the copy on this machine."""
        self._copies.drop(self.folder / version)
        return True

    def keep(self, *versions: str) -> None:
        """Drop the copies on this machine, but for these and the one used last before them."""
        self._copies.keep(*versions)

    def remove(self, version: str) -> None:
        """Delete the anchor from the store, its manifest first. Raises AnchorMissing."""
        self._read(version, MANIFEST)
        self._run(f"remove {version}", lambda _: self._files.rm_file(self._path(version, MANIFEST)))
        self._run(f"remove {version}", lambda _: self._files.rm(f"{self._root}/{version}", recursive=True))

    @contextlib.contextmanager
    def _copying(self, version: str) -> Iterator[Path]:
        """Give a folder to copy into, which is gone at the end unless it was completed."""
        try:
            work = self._copies.begin(version)
            try:
                yield work
            finally:
                self._copies.drop(work)
        except OSError as error:
            raise AnchorsUnavailable(f"anchor {version} cannot be kept in {self.folder}: {error}") from error

    def _download(self, version: str, name: str, digest: str, work: Path) -> None:
        if not VERSION.fullmatch(name):
            raise AnchorDamaged(f"anchor {version}: its manifest names a file {name!r}")
        source, target = self._path(version, name), work / name
        for _ in range(DOWNLOADS):
            try:
                self._run(f"download {version}/{name}", lambda p: self._files.get_file(source, str(target), callback=p))
            except AnchorMissing:
                raise AnchorDamaged(f"anchor {version}: {name} is missing in {self.name}") from None
            with target.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    return
        raise AnchorDamaged(f"anchor {version}: {name} in {self.name} is not what the manifest says")

    def _upload(self, source: Path, version: str, name: str) -> None:
        target = self._path(version, name)
        away, pause = retry_if_exception(_may_pass), wait_exponential(1, max=LONGEST_PAUSE_S)
        for attempt in Retrying(retry=away, wait=pause, stop=stop_after_attempt(UPLOADS), reraise=True):
            with attempt:
                self._run(f"upload {version}/{name}", lambda p: self._files.put_file(str(source), target, callback=p))

    def _read(self, version: str, file: str) -> bytes:
        if not VERSION.fullmatch(version):
            raise AnchorMissing(f"{version!r} is no name of an anchor")
        try:
            return self._run(f"read {version}/{file}", lambda _: bytes(self._files.cat_file(self._path(version, file))))
        except AnchorMissing:
            raise AnchorMissing(f"there is no {file} of anchor {version} in {self.name}") from None

    def _path(self, version: str, file: str) -> str:
        return f"{self._root}/{version}/{file}"

    def _run(self, what: str, call: Callable[[_Progress], T]) -> T:
        """Return what `call` returns, in a thread that is left to itself once nothing moves for `timeout_s`."""
        progress, result = _Progress(), Future[T]()

        def work() -> None:
            try:
                result.set_result(call(progress))
            except BaseException as error:
                result.set_exception(error)

        Thread(target=work, name="anchors", daemon=True).start()
        while not result.done():
            left_s = progress.moved_s + self._timeout_s - time.monotonic()
            if left_s <= 0:
                raise AnchorsUnavailable(f"{self.name}: no answer in {self._timeout_s:g} s ({what})")
            wait([result], left_s)
        try:
            return result.result()
        except FileNotFoundError as error:
            raise AnchorMissing(f"{self.name}: not there ({what})") from error
        except Exception as error:  # every file system has exceptions of its own
            raise AnchorsUnavailable(f"{self.name}: {type(error).__name__}: {error} ({what})"[:500]) from error


def _may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed later; without access or bucket it does not."""
    refused = isinstance(error.__cause__, PermissionError | FileNotFoundError)
    return isinstance(error, AnchorsUnavailable) and not refused


def _json(value: bytes, version: str, file: str) -> dict[str, Any]:
    try:
        return dict(orjson.loads(value))
    except ValueError as error:
        raise AnchorDamaged(f"anchor {version}: {file} cannot be read: {error}") from error
