"""Ids are hashed with the installation's key, together as alone, and each domain by itself."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import (
    EVENT_TOPICS,
    IDS,
    NoIdKey,
    fingerprint,
    hash_bytes,
    hash_event_id,
    hash_id,
    hash_ids,
    hash_visitor,
    hash_visitors,
    key_in_use,
    keys_of,
    sip_hash,
    use_key,
)

IDS_OF_ANY_KIND = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
MASK = (1 << 64) - 1


def sip_hash_by_hand(data, k0, k1, compressing, finishing):
    """SipHash as its paper writes it, over Python's integers."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turned(x, bits):
        return ((x << bits) | (x >> (64 - bits))) & MASK

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = turned(v[1], 13) ^ v[0]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = turned(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = turned(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = turned(v[1], 17) ^ v[2]
            v[2] = turned(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(compressing)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(finishing)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_reference_gives_what_the_paper_of_siphash_gives():
    k0, k1 = 0x0706050403020100, 0x0F0E0D0C0B0A0908
    assert sip_hash_by_hand(bytes(range(15)), k0, k1, 2, 4) == 0xA129CA6149BE45E5


@given(st.binary(max_size=300), st.integers(0, MASK), st.integers(0, MASK), st.integers(0, 9))
def test_the_kernel_is_siphash_1_3(data, k0, k1, start):
    array = np.frombuffer(bytes(start) + data, np.uint8)
    assert sip_hash(array, start, len(data), np.uint64(k0), np.uint64(k1)) == sip_hash_by_hand(data, k0, k1, 1, 3)


def test_hashes_of_a_given_key_stay_what_they_are():
    assert key_in_use() == bytes(range(16))
    assert fingerprint() == "siphash13:1d2d1cbf1448c0f1"
    assert [f"{one:016x}" for one in hash_ids(["a", "item-1", "grüne Socken, Größe 43", "x" * 256])] == [
        "b416f2133477849f",
        "ea1ad574b5a163a3",
        "cfd51906394a2852",
        "eb29737cea3176b4",
    ]
    assert f"{hash_visitor(None, 'a'):016x}" == "106ae594f567adf5"
    assert [f"{hash_event_id('a', topic):016x}" for topic in EVENT_TOPICS] == [
        "8ecaf1f11e431459",
        "7d1eb50db96339d6",
        "ad9374658376e649",
        "f97fda0030a1f365",
    ]


@given(st.lists(IDS_OF_ANY_KIND, max_size=20))
def test_ids_hashed_together(texts):
    assert hash_ids(texts).tolist() == [hash_id(text) for text in texts]
    visitors = [(text[::2], text) for text in texts]
    assert hash_visitors(visitors).tolist() == [hash_visitor(*one) for one in visitors]


@given(IDS_OF_ANY_KIND.filter(bool))
def test_another_key_gives_another_hash(text):
    data = np.frombuffer(text.encode(), np.uint8)
    assert hash_bytes(data, 0, len(data), keys_of(bytes(16)), IDS) != hash_id(text)


@given(IDS_OF_ANY_KIND.filter(bool))
def test_a_user_a_session_and_an_event_of_one_text_have_nothing_in_common(text):
    hashes = [
        hash_id(text),
        hash_id(f"session:{text}"),
        hash_visitor(None, text),
        hash_visitor(None, f"session:{text}"),
    ]
    hashes += [hash_event_id(text, topic) for topic in EVENT_TOPICS]
    assert len(set(hashes)) == len(hashes)
    assert hash_visitor(text, "any") == hash_id(text)


def test_ids_made_to_collide_under_fnv_do_not_collide():
    # A published pair: under FNV-1a, and its final mixing, one id passed for the other.
    def fnv(data):
        h = 0xCBF29CE484222325
        for byte in data:
            h = ((h ^ byte) * 0x100000001B3) & MASK
        return h

    one, other = b"8yn0iYCKYHlIj4-BwPqk", b"GReLUrM4wMqfg9yzV3KQ"
    assert fnv(one) == fnv(other)
    assert hash_id(one.decode()) != hash_id(other.decode())


@pytest.mark.process
def test_a_process_has_one_key_and_hashes_nothing_without():
    use_key(key_in_use())
    with pytest.raises(NoIdKey):
        use_key(bytes(16))
    with pytest.raises(ValueError, match="16 bytes"):
        use_key(b"short")
    program = "import schemas.ids as ids\ntry: ids.hash_id('a')\nexcept ids.NoIdKey as error: print(error)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "use_key" in said
