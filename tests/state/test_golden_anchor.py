"""The folder of an anchor: its files, their formats and the manifest stay as long as an installation may keep one."""

import hashlib
import json

import numpy as np
import pytest
from helpers.golden import GOLDEN

from schemas.ids import hash_id
from state.anchor import Anchor, AnchorDamaged, load_anchor, load_metrics, read_manifest, save_anchor

pytestmark = pytest.mark.law(n=8)

FOLDER = GOLDEN / "anchor" / "a-golden"
IDS = sorted(("cup", "pot", "tea"), key=hash_id)
ANCHOR = Anchor(
    version="a-golden",
    item_ids=IDS,
    item_hash=np.array([hash_id(item) for item in IDS], np.uint64),
    whitened=np.array([[1, -2], [0.5, 0.25], [0, 3]], np.float32),
    gram=np.array([[2, 1], [1, 4]], np.float32),
    alpha=8.0,
    weights=np.array([0, 1, 1, 3, 2, 5]),
    embedding=np.array([[1, 0], [0, 1], [0.5, -0.5]], np.float16),
    mixture={"decay": 0.5},
    trees={"n": 1, "leaf": np.array([0.25, -1.0])},
)
METRICS = {"ndcg": 0.5}
MANIFEST = {"trained_ms": 1_700_000_000_000, "parent": "a0", "range": {"from": {"ratings:0": 0}}}
FILES = {
    "item_hash.npy": ("<u8", (3,)), "whitened.npy": ("<f4", (3, 2)), "gram.npy": ("<f4", (2, 2)),
    "embedding.npy": ("<f2", (3, 2)), "items.json": None, "mixture.json": None, "trees.json": None,
    "metrics.json": None, "index.faiss": None, "manifest.json": None,
}  # fmt: skip


def save(folder):
    return save_anchor(folder, ANCHOR, lambda path: path.write_bytes(b"index"), METRICS, MANIFEST)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_anchor_is_written_byte_for_byte_as_it_was(tmp_path):
    written, golden = files_of(save(tmp_path)), files_of(FOLDER)
    assert written.keys() == golden.keys() == FILES.keys()
    for name, value in golden.items():
        assert written[name] == value, name
    assert [path.name for path in tmp_path.iterdir()] == ["a-golden"]


def test_the_golden_anchor_is_read_as_what_it_was():
    found = load_anchor(FOLDER)
    for name, value in vars(ANCHOR).items():
        read = getattr(found, name)
        if isinstance(value, np.ndarray):
            assert np.array_equal(read, value), name
            assert read.dtype == value.dtype or name == "weights", name
        elif name == "trees":
            assert read == {"n": 1, "leaf": [0.25, -1.0]}
        else:
            assert read == value, name
    assert load_metrics(FOLDER) == METRICS


def test_arrays_have_their_types_and_shapes_without_this_program():
    for name, told in FILES.items():
        if told:
            array = np.load(FOLDER / name)
            assert (array.dtype.str, array.shape) == told, name
        elif name.endswith(".json"):
            json.loads((FOLDER / name).read_bytes())


def test_the_manifest_has_these_fields_and_the_checksum_of_every_other_file():
    manifest = read_manifest(FOLDER)
    own = {"version": "a-golden", "id_key": "siphash13:1d2d1cbf1448c0f1", "alpha": 8.0, "weights": [0, 1, 1, 3, 2, 5]}
    sums = {name: hashlib.sha256(value).hexdigest() for name, value in files_of(FOLDER).items()}
    del sums["manifest.json"]
    assert manifest == {**MANIFEST, **own, "sha256": sums}


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_a_file_that_is_not_what_the_manifest_says_is_refused_by_name(tmp_path, name):
    folder = save(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(AnchorDamaged, match=name):
        load_anchor(folder)
