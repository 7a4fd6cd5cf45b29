"""The kernel that reads Avro bodies by a program and writes columns, one row per interaction."""

import numba
import numpy as np
import numpy.typing as npt

from schemas.ids import IDS, SESSIONS, IdKeys, hash_bytes
from schemas.program import (
    BOOLEAN,
    BRAND,
    CATEGORY,
    COUNTRY,
    DOUBLE,
    EVENT_ID,
    IGNORED,
    INTEGER,
    ITEM,
    KIND,
    LINES,
    N_SLOTS,
    N_TEXTS,
    PRICE,
    QUANTITY,
    SESSION,
    STARS,
    TEXT,
    TEXT_MAP,
    TS_MS,
    USER,
)
from schemas.uncounted import uncounted

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
OK, BROKEN, TOO_LONG = 0, 1, 2
MISSING = -1
MAX_ID_BYTES = 256


@uncounted()
def _read_long(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return (value, position behind it); position -1 when the bytes end or the number is too long."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < 64:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 0x80:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
    return 0, -1


@uncounted()
def valid_utf8(data: Bytes, at: int, end: int) -> bool:
    """Say whether the bytes are UTF-8 (RFC 3629: no overlong forms, no surrogates)."""
    while at < end:
        byte = data[at]
        if byte < 0x80:
            at += 1
            continue
        if 0xC2 <= byte <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            low = 0xA0 if byte == 0xE0 else 0x80
            high = 0x9F if byte == 0xED else 0xBF
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            low = 0x90 if byte == 0xF0 else 0x80
            high = 0x8F if byte == 0xF4 else 0xBF
        else:
            return False
        if at + more >= end or data[at + 1] < low or data[at + 1] > high:
            return False
        for k in range(2, more + 1):
            if data[at + k] < 0x80 or data[at + k] > 0xBF:
                return False
        at += more + 1
    return True


@uncounted()
def _skip_text(data: Bytes, at: int, end: int) -> int:
    length, at = _read_long(data, at, end)
    if at < 0 or length < 0 or length > end - at or not valid_utf8(data, at, at + length):
        return -1
    return at + length


@uncounted()
def _skip_text_map(data: Bytes, at: int, end: int) -> int:
    while True:
        count, at = _read_long(data, at, end)
        if at < 0:
            return -1
        if count == 0:
            return at
        if count < 0:
            count = -count
            _, at = _read_long(data, at, end)
            if at < 0:
                return -1
        if count < 0 or count > end - at:
            return -1
        for _ in range(2 * count):
            at = _skip_text(data, at, end)
            if at < 0:
                return -1


@uncounted()
def _bits(data: Bytes, at: int, size: int) -> np.uint64:
    """Return the number that `size` bytes are, the lowest first."""
    bits = np.uint64(0)
    for k in range(size):
        bits |= np.uint64(data[at + k]) << np.uint64(8 * k)
    return bits


@uncounted()
def _read_field(
    data: Bytes, at: int, end: int, kind: int, slot: int, null_at: int, starts: Int64s, lengths: Int64s,
    numbers: npt.NDArray[np.float64],
) -> int:  # fmt: skip
    """Read one field into its slot; return the position behind it, -1 when it is broken."""
    if null_at >= 0:
        branch, at = _read_long(data, at, end)
        if at < 0 or branch < 0 or branch > 1:
            return -1
        if branch == null_at:
            if slot != IGNORED:
                lengths[slot] = MISSING
            return at
    if kind == TEXT:
        length, at = _read_long(data, at, end)
        if at < 0 or length < 0 or length > end - at or not valid_utf8(data, at, at + length):
            return -1
        if slot != IGNORED:
            starts[slot], lengths[slot] = at, length
        return at + length
    if kind == TEXT_MAP:
        return _skip_text_map(data, at, end)
    if kind == INTEGER:
        value, at = _read_long(data, at, end)
        if at >= 0 and slot != IGNORED:
            starts[slot], numbers[slot], lengths[slot] = value, value, 0
        return at
    size = 8 if kind == DOUBLE else 1 if kind == BOOLEAN else 4
    if at + size > end:
        return -1
    if slot != IGNORED:
        bits = _bits(data, at, size)
        if kind == DOUBLE:
            numbers[slot] = np.uint64(bits).view(np.float64)
        else:
            numbers[slot] = np.uint32(bits).view(np.float32)
        starts[slot], lengths[slot] = 0, 0
    return at + size


@uncounted()
def _hash_slot(data: Bytes, slot: int, starts: Int64s, lengths: Int64s, keys: IdKeys, domain: int) -> np.uint64:
    return hash_bytes(data, starts[slot], lengths[slot], keys, domain)


@uncounted()
def _visitor(data: Bytes, starts: Int64s, lengths: Int64s, keys: IdKeys) -> np.uint64:
    if lengths[USER] > 0:
        return _hash_slot(data, USER, starts, lengths, keys, IDS)
    return _hash_slot(data, SESSION, starts, lengths, keys, SESSIONS)


@uncounted()
def _emit(
    data: Bytes, message: int, line: int, kind: int, kind_hashes: npt.NDArray[np.uint64], kind_codes: Bytes,
    keys: IdKeys, event_domain: int, starts: Int64s, lengths: Int64s, numbers: npt.NDArray[np.float64],
    row: npt.NDArray[np.void],
) -> None:  # fmt: skip
    row.message, row.line, row.kind = message, line, kind
    if kind == 0:
        name = _hash_slot(data, KIND, starts, lengths, keys, IDS)
        for k in range(len(kind_hashes)):
            if kind_hashes[k] == name:
                row.kind = kind_codes[k]
    row.event_id = _hash_slot(data, EVENT_ID, starts, lengths, keys, event_domain)
    row.user = _visitor(data, starts, lengths, keys)
    row.item = _hash_slot(data, ITEM, starts, lengths, keys, IDS)
    row.ts_ms = starts[TS_MS] if lengths[TS_MS] != MISSING else 0
    row.value = 1.0
    if lengths[QUANTITY] != MISSING:
        row.value = numbers[QUANTITY]
    if lengths[STARS] != MISSING:
        row.value = numbers[STARS]
    row.price = np.nan
    if lengths[PRICE] != MISSING:  # a price that is there but no number must not pass for one that is absent
        row.price = np.inf if np.isnan(numbers[PRICE]) else numbers[PRICE]
    row.category = _hash_slot(data, CATEGORY, starts, lengths, keys, IDS)
    row.brand = _hash_slot(data, BRAND, starts, lengths, keys, IDS)
    row.country = _hash_slot(data, COUNTRY, starts, lengths, keys, IDS)
    row.item_start = starts[ITEM] if lengths[ITEM] > 0 else 0
    row.item_length = max(lengths[ITEM], 0)


@uncounted()
def _too_long(lengths: Int64s) -> bool:
    for slot in range(N_TEXTS):
        if lengths[slot] > MAX_ID_BYTES:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def read_messages(
    data: Bytes, bounds: Int64s, messages: npt.NDArray[np.int32], program: Int64s, kind: int,
    kind_hashes: npt.NDArray[np.uint64], kind_codes: Bytes, keys: IdKeys, event_domain: int,
    rows: npt.NDArray[np.void], status: Bytes,
) -> tuple[int, int]:  # fmt: skip
    """Decode `messages` (all of one schema); return (rows written, messages done).

    Message m's Avro body is `data[bounds[m] + 5 : bounds[m + 1]]`. `kind` 0 takes it
    from the kind field. Ids are hashed with `keys`, event ids in `event_domain`.
    `status[i]` becomes OK, BROKEN or TOO_LONG; only an OK message leaves rows. Stops
    before a message whose rows would not fit.
    """
    starts, lengths = np.zeros(N_SLOTS, np.int64), np.empty(N_SLOTS, np.int64)
    numbers = np.zeros(N_SLOTS, np.float64)
    n_rows = 0
    for i in range(len(messages)):
        message = messages[i]
        at, end = bounds[message] + 5, bounds[message + 1]
        lengths[:] = MISSING
        first = n_rows
        has_lines = too_long = False
        entry = 0
        while entry < len(program) and at >= 0:
            if program[entry, 0] != LINES:
                at = _read_field(
                    data, at, end, program[entry, 0], program[entry, 1], program[entry, 2], starts, lengths, numbers
                )
                entry += 1
                continue
            has_lines = True
            n_inner = program[entry, 1]
            while at >= 0:
                count, at = _read_long(data, at, end)
                if at < 0 or count == 0:
                    break
                if count < 0:
                    count = -count
                    _, at = _read_long(data, at, end)
                if at < 0 or count < 0 or count > end - at:
                    at = -1
                    break
                for _ in range(count):
                    for slot in (ITEM, PRICE, QUANTITY, CATEGORY, BRAND):
                        lengths[slot] = MISSING
                    for inner in range(entry + 1, entry + 1 + n_inner):
                        at = _read_field(
                            data, at, end, program[inner, 0], program[inner, 1], program[inner, 2],
                            starts, lengths, numbers,
                        )  # fmt: skip
                        if at < 0:
                            break
                    if at < 0:
                        break
                    if n_rows == len(rows):
                        return first, i
                    too_long = too_long or _too_long(lengths)
                    line = n_rows - first
                    _emit(
                        data, message, line, kind, kind_hashes, kind_codes, keys, event_domain, starts, lengths,
                        numbers, rows[n_rows],
                    )  # fmt: skip
                    n_rows += 1
            entry += 1 + n_inner
        if at == end and not has_lines:
            if n_rows == len(rows):
                return first, i
            too_long = _too_long(lengths)
            _emit(
                data, message, 0, kind, kind_hashes, kind_codes, keys, event_domain, starts, lengths, numbers,
                rows[n_rows],
            )  # fmt: skip
            n_rows += 1
        if at != end or n_rows == first:
            status[i] = BROKEN
            n_rows = first
        elif too_long:
            status[i] = TOO_LONG
            n_rows = first
        else:
            status[i] = OK
    return n_rows, len(messages)
