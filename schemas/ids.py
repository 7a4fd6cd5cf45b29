"""Ids cross the wire as text and rest in rows as 64-bit hashes, made with a key of the installation.

SipHash-1-3 (Aumasson and Bernstein, 2012) over the UTF-8 bytes: who does not know the key can neither choose two ids
that collide nor tell which do. One round a word and three at the end are what Rust and CPython take for their tables,
and what costs no more than the FNV-1a that was here before; 2-4 would guard forgeries of a secret, which no id is.
Each domain has a key of its own, derived from the installation's: an id, a session and an event id of the same text
have nothing to do with each other. 0 is kept for "absent". At 100 million items the chance of one collision anywhere
is about 0.0003 (birthday bound n²/2⁶⁵).

A program names the key before it hashes anything (`use_key`); a program without one must not hash.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from schemas.compiled.njit import njit_no_refcount

KEY_BYTES = 16
MEASURING_KEY = b"headrace-measure"
"""Ids are hashed with it where no installation is concerned, so that figures are the same on every machine."""
EVENT_TOPICS = ("product-views", "user-events", "purchases", "ratings")
IDS, SESSIONS, EVENTS = 0, 1, 2
"""Domains: users, items, categories, brands and countries; sessions; event ids, one a topic from here on."""
DOMAINS = ("ids", "sessions", *(f"events:{topic}" for topic in EVENT_TOPICS))

IdKeys = npt.NDArray[np.uint64]
"""Two words a domain, shape (len(DOMAINS), 2)."""

_keys: IdKeys | None = None
_key = b""


class NoIdKey(RuntimeError):
    """Something was hashed before the program named its key, or a second key was named."""


def use_key(key: bytes) -> None:
    """Hash with this key from here on; a process has one. Raises NoIdKey for another than the one in use."""
    global _keys, _key
    if len(key) != KEY_BYTES:
        raise ValueError(f"an id key has {KEY_BYTES} bytes, not {len(key)}")
    if _keys is not None and key != _key:
        raise NoIdKey("this process hashes ids with another key already")
    _keys, _key = keys_of(key), key


def keys_of(key: bytes) -> IdKeys:
    """Return the keys of the domains, derived from an installation's."""
    derived = b"".join(blake2b(name.encode(), key=key, digest_size=16).digest() for name in DOMAINS)
    return np.frombuffer(derived, np.uint64).reshape(len(DOMAINS), 2).copy()


def id_keys() -> IdKeys:
    """Return the keys that this process hashes with; raises NoIdKey before `use_key`."""
    if _keys is None:
        raise NoIdKey("no id key is in use: call schemas.ids.use_key (programs: state.id_key.use_id_key) first")
    return _keys


def key_in_use() -> bytes:
    """Return the installation's key, for programs that start others with the same; raises NoIdKey before `use_key`."""
    id_keys()
    return _key


def fingerprint() -> str:
    """Return what tells the key in use from others, and tells nothing else of it.

    >>> len(fingerprint())
    26
    """
    return "siphash13:" + blake2b(b"fingerprint", key=key_in_use(), digest_size=8).hexdigest()


def event_domain(topic: str) -> int:
    """Return the domain of the event ids of a topic: an event id counts once per topic."""
    return EVENTS + EVENT_TOPICS.index(topic)


@intrinsic
def _word_at(typing_context: Any, address: Any) -> Any:
    """Return the eight bytes at an address, the lowest first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)

    return types.uint64(types.intp), generate


@njit_no_refcount()
def _turned(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@njit_no_refcount()
def _sip_round(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a += b
    c += d
    b = _turned(b, 13) ^ a
    d = _turned(d, 16) ^ c
    a = _turned(a, 32)
    c += b
    a += d
    b = _turned(b, 17) ^ c
    d = _turned(d, 21) ^ a
    c = _turned(c, 32)
    return a, b, c, d


@njit_no_refcount()
def sip_hash(data: npt.NDArray[np.uint8], start: int, length: int, k0: np.uint64, k1: np.uint64) -> np.uint64:
    """Return SipHash-1-3 of `data[start : start + length]`; `data` is contiguous."""
    a, b = k0 ^ np.uint64(0x736F6D6570736575), k1 ^ np.uint64(0x646F72616E646F6D)
    c, d = k0 ^ np.uint64(0x6C7967656E657261), k1 ^ np.uint64(0x7465646279746573)
    address = data.ctypes.data + start
    for _ in range(length >> 3):
        word: np.uint64 = _word_at(address)  # type: ignore[call-arg]
        a, b, c, d = _sip_round(a, b, c, d ^ word)
        a ^= word
        address += 8
    word = np.uint64(length & 0xFF) << np.uint64(56)
    for k in range(length & 7):
        word |= np.uint64(data[start + (length & ~7) + k]) << np.uint64(8 * k)
    a, b, c, d = _sip_round(a, b, c, d ^ word)
    a, c = a ^ word, c ^ np.uint64(0xFF)
    for _ in range(3):
        a, b, c, d = _sip_round(a, b, c, d)
    return a ^ b ^ c ^ d


@njit_no_refcount()
def hash_bytes(data: npt.NDArray[np.uint8], start: int, length: int, keys: IdKeys, domain: int) -> np.uint64:
    """Return the id hash of `data[start : start + length]` in a domain; 0 for an empty id."""
    if length <= 0:
        return np.uint64(0)
    h = sip_hash(data, start, length, keys[domain, 0], keys[domain, 1])
    return h if h != np.uint64(0) else np.uint64(1)


@njit_no_refcount()
def _hash_all(
    data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], domains: npt.NDArray[np.uint8], keys: IdKeys,
    out: npt.NDArray[np.uint64],
) -> None:  # fmt: skip
    start = 0
    for i in range(len(lengths)):
        out[i] = hash_bytes(data, start, lengths[i], keys, domains[i])
        start += lengths[i]


def _hash_texts(texts: Sequence[str], domains: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    encoded = [text.encode() for text in texts]
    lengths, hashes = np.array([len(one) for one in encoded], np.int64), np.empty(len(encoded), np.uint64)
    _hash_all(np.frombuffer(b"".join(encoded), np.uint8), lengths, domains, id_keys(), hashes)
    return hashes


def _hash_text(text: str, domain: int) -> int:
    data = np.frombuffer(text.encode(), np.uint8)
    return int(hash_bytes(data, 0, len(data), id_keys(), domain))


@lru_cache(1 << 16)
def hash_id(text: str) -> int:
    """Return the 64-bit hash of an id; 0 for the empty text.

    >>> hash_id("")
    0
    >>> hash_id("a") != hash_id("b")
    True
    """
    return _hash_text(text, IDS)


def hash_ids(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the hashes of ids; those of 64 that are new in a fifth of the time that `hash_id` takes one by one.

    >>> hash_ids(["a", ""]).tolist() == [hash_id("a"), 0]
    True
    """
    return _hash_texts(texts, np.full(len(texts), IDS, np.uint8))


def hash_event_id(text: str, topic: str) -> int:
    """Return the hash of an event id of a topic.

    >>> hash_event_id("1", "purchases") != hash_event_id("1", "product-views")
    True
    """
    return _hash_text(text, event_domain(topic))


@lru_cache(1 << 12)
def hash_visitor(user: str | None, session: str | None) -> int:
    """Return the hash that a visitor's row is named by: that of the user, else of the session; 0 without either.

    >>> hash_visitor("session:x", None) != hash_visitor(None, "x") != hash_visitor("x", None)
    True
    """
    return hash_id(user) if user else _hash_text(session or "", SESSIONS)


def hash_visitors(visitors: Sequence[tuple[str | None, str | None]]) -> npt.NDArray[np.uint64]:
    """Return `hash_visitor` of each (user, session).

    >>> hash_visitors([("u", "s"), (None, "s")]).tolist() == [hash_id("u"), hash_visitor(None, "s")]
    True
    """
    domains = np.array([IDS if user else SESSIONS for user, _ in visitors], np.uint8)
    return _hash_texts([user or session or "" for user, session in visitors], domains)
