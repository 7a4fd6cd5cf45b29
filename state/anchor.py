"""An anchor on disk: one folder a version, written whole or not at all.

    items.json      text ids, in row order          item_hash.npy  uint64, ascending
    whitened.npy    float32 (n, d), W = Y L⁻ᵀ       gram.npy       float32 (d, d), YᵀY
    index.faiss     search index over W             metrics.json   offline metrics
    embedding.npy   float16 (n, 64), of the rows    mixture.json   fitted numbers of the scoring
    trees.json      trees that order the likeliest, or null (serving/scoring/tree_ensemble.py)
    manifest.json   version, settings, data range, parent, and the SHA-256 of every other file

With YᵀY + λI = L Lᵀ, a user's whitened vector z = Lᵀx scores item j as z · w_j = x · y_j.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from schemas.ids import fingerprint
from state.rows.slot_map import SlotMap

MANIFEST = "manifest.json"
INDEX, METRICS = "index.faiss", "metrics.json"
EMBEDDING, MIXTURE, TREES = "embedding.npy", "mixture.json", "trees.json"
FILES = ("items.json", "item_hash.npy", "whitened.npy", "gram.npy", INDEX, EMBEDDING, MIXTURE, TREES, METRICS)


class AnchorDamaged(Exception):
    """A file of the anchor is missing or is not the one that was written."""


@dataclass(frozen=True)
class Anchor:
    """Item factors of one training, as the fold and the server use them."""

    version: str
    item_ids: list[str]
    item_hash: npt.NDArray[np.uint64]
    whitened: npt.NDArray[np.float32]
    gram: npt.NDArray[np.float32]
    alpha: float
    weights: npt.NDArray[np.float64]
    """Event weight by kind: the confidence in an item is 1 + alpha · Σ weight."""
    embedding: npt.NDArray[np.float16] | None = None
    """Where each item stands among the co-occurrence rows, length 1 or 0 (docs/model.md)."""
    mixture: dict[str, Any] | None = None
    """Fitted numbers of the scoring by name; None: the default."""
    trees: dict[str, Any] | None = None
    """Columns of the trees by name (serving/scoring/tree_ensemble.py); None where they do not win."""

    @cached_property
    def rows_by_hash(self) -> SlotMap:
        """Index from item hash to factor row."""
        index = SlotMap(max(1, len(self.item_hash)))
        index.assign(self.item_hash)
        return index

    def row_of(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the factor row of each item, -1 for an item that the anchor lacks."""
        return self.rows_by_hash.find(hashes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_anchor(
    folder: Path, anchor: Anchor, write_index: Callable[[Path], None], metrics: dict[str, Any], manifest: dict[str, Any]
) -> Path:
    """Write the anchor to `folder / version` and return that path; a cut-short write leaves nothing there."""
    final = folder / anchor.version
    work = folder / f".{anchor.version}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "items.json").write_bytes(orjson.dumps(anchor.item_ids))
    np.save(work / "item_hash.npy", anchor.item_hash)
    np.save(work / "whitened.npy", anchor.whitened)
    np.save(work / "gram.npy", anchor.gram)
    write_index(work / INDEX)
    nothing = np.zeros((len(anchor.item_ids), 0), np.float16)
    np.save(work / EMBEDDING, nothing if anchor.embedding is None else anchor.embedding)
    for name, value in ((MIXTURE, anchor.mixture), (TREES, anchor.trees)):
        (work / name).write_bytes(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    (work / METRICS).write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    body = {
        **manifest,
        "version": anchor.version,
        "id_key": fingerprint(),
        "alpha": anchor.alpha,
        "weights": anchor.weights.tolist(),
        "sha256": {name: _sha256(work / name) for name in FILES},
    }
    (work / MANIFEST).write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))
    work.rename(final)
    return final


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of an anchor's folder. Raises AnchorDamaged."""
    try:
        return dict(orjson.loads((path / MANIFEST).read_bytes()))
    except (OSError, ValueError) as error:
        raise AnchorDamaged(f"anchor {path.name}: {MANIFEST} cannot be read: {error}") from error


def load_metrics(path: Path) -> dict[str, Any]:
    """Return the offline metrics of an anchor's folder."""
    return dict(orjson.loads((path / METRICS).read_bytes()))


def load_anchor(path: Path, mapped: bool = False) -> Anchor:
    """Return the anchor of a folder, its factors memory-mapped if `mapped`.

    Raises AnchorDamaged where a checksum or the key of ids differs.
    """
    manifest = read_manifest(path)
    if manifest.get("id_key") != fingerprint():
        raise AnchorDamaged(f"anchor {path.name} was trained under another key of ids; `headrace anchor` trains anew")
    for name, expected in manifest["sha256"].items():
        if not (path / name).exists() or _sha256(path / name) != expected:
            raise AnchorDamaged(f"anchor {path.name}: {name} is missing or not what the manifest says")
    return Anchor(
        version=manifest["version"],
        item_ids=orjson.loads((path / "items.json").read_bytes()),
        item_hash=np.load(path / "item_hash.npy"),
        whitened=np.asarray(np.load(path / "whitened.npy", mmap_mode="r" if mapped else None)),
        gram=np.load(path / "gram.npy"),
        alpha=manifest["alpha"],
        weights=np.array(manifest["weights"]),
        embedding=np.load(path / EMBEDDING),
        mixture=orjson.loads((path / MIXTURE).read_bytes()),
        trees=orjson.loads((path / TREES).read_bytes()) if TREES in manifest["sha256"] else None,
    )


def anchor_versions(folder: Path) -> list[str]:
    """Return the versions in a folder, oldest first."""
    if not folder.exists():
        return []
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and (p / MANIFEST).exists())
