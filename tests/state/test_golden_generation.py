"""The record of a generation keeps its bytes, and says what rows depend on by these names."""

import pytest
from helpers.golden import GOLDEN

from headrace.settings import Settings
from state.generations import Generation, new_generation, read_generation, switch_generation, write_generation
from state.rows import keys
from state.store.contract import MemoryStore

pytestmark = pytest.mark.law(n=8)

FOLD = {
    "n_lanes": 2, "session_gap_s": 1800.0, "lateness_s": 600.0, "pair_window": 3, "neighbours": 50,
    "short_half_life_s": 86400.0, "long_half_life_s": 604800.0, "affinity_half_life_s": 604800.0, "scope_limit": 200,
    "small_scope_limit": 50, "dedupe_window": 1048576, "weight_view": 1.0, "weight_cart": 3.0, "weight_wishlist": 2.0,
    "weight_purchase": 5.0, "weight_star": 1.0,
}  # fmt: skip
RECORD = Generation(
    name="g7", fold=FOLD, start={"ratings:0": 4}, until={"ratings:0": 9}, erasures={"erasures:0": 2},
    created_ms=1_700_000_000_000, id_key="siphash13:1d2d1cbf1448c0f1", topics={"ratings": "t1"},
)  # fmt: skip
GOLDEN_RECORD = (GOLDEN / "generation.json").read_bytes().rstrip(b"\n")


def test_the_record_keeps_its_bytes_under_its_key():
    store = MemoryStore()
    write_generation(store, RECORD)
    assert store.rows[keys.generation("g7")] == GOLDEN_RECORD
    assert set(store.rows) == {keys.generation("g7"), keys.GENERATION_CHANGED}


def test_the_golden_record_is_read_as_what_it_was():
    store = MemoryStore()
    store.rows[keys.generation("g7")] = GOLDEN_RECORD
    found = read_generation(store, "g7")
    assert found == RECORD
    assert found.prefixes == [b"{g7:0}", b"{g7:1}"]
    settings = found.settings(Settings(session_gap_s=60))
    assert (settings.generation, settings.n_lanes, settings.session_gap_s) == ("g7", 2, 1800)


def test_a_new_generation_records_these_settings_and_no_others():
    assert list(new_generation("g8", Settings(), 0).fold) == list(FOLD)


def test_pointers_to_generations_are_their_names():
    store = MemoryStore()
    for name in ("g7", "g8"):
        write_generation(store, RECORD.model_copy(update={"name": name}))
        switch_generation(store, name)
    assert [store.rows[key] for key in (keys.GENERATION, keys.GENERATION_BEFORE)] == [b"g8", b"g7"]
