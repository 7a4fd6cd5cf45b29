"""The kernel that reads Avro bodies by a program and writes columns, one row per interaction."""

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from schemas.decoder_program import (
    BOOLEAN,
    BRAND,
    CATEGORY,
    CHOICE,
    COUNTRY,
    DECIMAL,
    DOUBLE,
    ENUM,
    EVENT_ID,
    FIRST_SKIPPED,
    FIXED,
    IGNORED,
    INTEGER,
    ITEM,
    KIND,
    LINES,
    MOST_EXACT_SCALE,
    MOST_NESTED,
    N_SLOTS,
    N_TEXTS,
    NULL,
    PRICE,
    QUANTITY,
    SCALED,
    SESSION,
    SKIPPED_ARRAY,
    SKIPPED_MAP,
    SKIPPED_RECORD,
    SKIPPED_UNION,
    STARS,
    TEXT,
    TEXT_MAP,
    TS_MS,
    USER,
)
from schemas.ids import IDS, SESSIONS, IdKeys, hash_bytes

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
OK, BROKEN, TOO_LONG = 0, 1, 2
MISSING = -1
MAX_ID_BYTES = 256
MOST_EXACT = 2**53
POWERS = np.array([10.0**k for k in range(MOST_EXACT_SCALE + 1)])


@njit_no_refcount()
def _read_long(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return (value, position behind it); position -1 when the bytes end or the number is too long."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < 64:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 0x80:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at  # type: ignore[return-value]
        shift += np.uint64(7)
    return 0, -1


@njit_no_refcount()
def valid_utf8(data: Bytes, at: int, end: int) -> bool:
    """Return whether the bytes are UTF-8 (RFC 3629: no overlong forms, no surrogates)."""
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


@njit_no_refcount()
def _skip_text(data: Bytes, at: int, end: int) -> int:
    length, at = _read_long(data, at, end)
    if at < 0 or length < 0 or length > end - at or not valid_utf8(data, at, at + length):
        return -1
    return at + length


@njit_no_refcount()
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


@njit_no_refcount()
def _bits(data: Bytes, at: int, size: int) -> np.uint64:
    """Return the number that `size` bytes are, the lowest first."""
    bits = np.uint64(0)
    for k in range(size):
        bits |= np.uint64(data[at + k]) << np.uint64(8 * k)
    return bits


@njit_no_refcount()
def _skip_bytes(data: Bytes, at: int, end: int) -> int:
    length, at = _read_long(data, at, end)
    return -1 if at < 0 or length < 0 or length > end - at else at + length


@njit_no_refcount()
def _read_decimal(data: Bytes, at: int, end: int, scale: int, size: int) -> tuple[float, int]:
    """Return (number, position behind it) of a big-endian two's complement; -1 for one a float64 might not hold."""
    if size < 0:
        size, at = _read_long(data, at, end)
        if at < 0 or size < 0:
            return 0.0, -1
    if size > 8 or size > end - at:
        return 0.0, -1
    value = np.int64(0)
    for k in range(size):
        byte = np.int64(data[at + k])
        value = (value << 8) | (byte - 256 if k == 0 and byte > 127 else byte)
    if value > MOST_EXACT or value < -MOST_EXACT:
        return 0.0, -1
    return value / POWERS[scale], at + size


@njit_no_refcount()
def _read_field(
    data: Bytes, at: int, end: int, kind: int, slot: int, null_at: int, starts: Int64s, lengths: Int64s,
    numbers: npt.NDArray[np.float64],
) -> int:  # fmt: skip
    """Read one field of a type as ours has them into its slot; return the position behind it, -1 when it is broken.

    Kept small, so that the compiler puts it where it is called: nearly all fields are of these types.
    """
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


@njit_no_refcount()
def _read_other(
    data: Bytes, at: int, end: int, program: Int64s, entry: int, keep: bool, starts: Int64s, lengths: Int64s,
    numbers: npt.NDArray[np.float64],
) -> int:  # fmt: skip
    """Read one field of any type that holds no others, as `_read_field`; without `keep` it is only read past."""
    kind = program[entry, 0]
    if kind == CHOICE:
        branch, at = _read_long(data, at, end)
        if at < 0 or branch < 0 or branch >= program[entry, 3]:
            return -1
        entry += 1
        for _ in range(branch):
            entry += program[entry, 5]
        kind = program[entry, 0]
    slot, null_at = program[entry, 1] if keep else IGNORED, program[entry, 2]
    if kind < LINES:
        return _read_field(data, at, end, kind, slot, null_at, starts, lengths, numbers)
    if null_at >= 0:
        branch, at = _read_long(data, at, end)
        if at < 0 or branch < 0 or branch > 1:
            return -1
        if branch == null_at:
            if slot != IGNORED:
                lengths[slot] = MISSING
            return at
    if kind == SCALED:
        value, at = _read_long(data, at, end)
        if at >= 0 and slot != IGNORED:
            value //= program[entry, 3]
            starts[slot], numbers[slot], lengths[slot] = value, value, 0
        return at
    if kind == NULL:
        if slot != IGNORED:
            lengths[slot] = MISSING
        return at
    if kind == ENUM:
        symbol, at = _read_long(data, at, end)
        if at < 0 or symbol < 0 or symbol >= program[entry, 4]:
            return -1
        if slot != IGNORED:  # negative: it lies in `texts`
            starts[slot], lengths[slot] = -1 - program[entry + 1 + symbol, 3], program[entry + 1 + symbol, 4]
        return at
    if kind == DECIMAL:
        number, at = _read_decimal(data, at, end, program[entry, 3], program[entry, 4])
        if at >= 0 and slot != IGNORED:
            starts[slot], numbers[slot], lengths[slot] = 0, number, 0
        return at
    if kind != FIXED:  # NEVER
        return -1
    size = program[entry, 3]
    if size < 0:
        return _skip_bytes(data, at, end)
    return -1 if size > end - at else at + size


@njit_no_refcount()
def _block(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return (how many items follow, position of the first); position -1 when that cannot be."""
    count, at = _read_long(data, at, end)
    if at >= 0 and count < 0:
        count = -count
        _, at = _read_long(data, at, end)
    return (count, -1) if at < 0 or count < 0 or count > end - at else (count, at)


@njit_no_refcount()
def _skip(
    data: Bytes, at: int, end: int, program: Int64s, entry: int, starts: Int64s, lengths: Int64s,
    numbers: npt.NDArray[np.float64], stack: Int64s,
) -> int:  # fmt: skip
    """Read past a field that holds others; return the position behind it, -1 when it is broken.

    The stack holds, innermost last: the first entry of a body, the one behind its last, the next
    one to read, how many more times the body comes in this block (-1: it comes once), and the kind.
    """
    top = 0
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = entry, entry + program[entry, 5], entry, -1, 0
    while top >= 0:
        if stack[top, 2] == stack[top, 1]:  # the body was read
            if stack[top, 3] < 0:
                top -= 1
                continue
            stack[top, 3] -= 1
            if stack[top, 3] <= 0:
                stack[top, 3], at = _block(data, at, end)
                if at < 0:
                    return -1
                if stack[top, 3] == 0:
                    top -= 1
                    continue
            stack[top, 2] = stack[top, 0]
            if stack[top, 4] == SKIPPED_MAP:
                at = _skip_text(data, at, end)
                if at < 0:
                    return -1
            continue
        entry = stack[top, 2]
        stack[top, 2] += program[entry, 5]
        kind = program[entry, 0]
        first, last, times = entry + 1, entry + program[entry, 5], -1
        if kind == SKIPPED_UNION:
            branch, at = _read_long(data, at, end)
            if at < 0 or branch < 0 or branch >= program[entry, 3]:
                return -1
            for _ in range(branch):
                first += program[first, 5]
            last = first + program[first, 5]
        elif kind in (SKIPPED_ARRAY, SKIPPED_MAP, LINES):
            times = 1  # so that the first block is read as any other
        elif kind != SKIPPED_RECORD:
            at = _read_other(data, at, end, program, entry, False, starts, lengths, numbers)
            if at < 0:
                return -1
            continue
        top += 1
        if top == len(stack):
            return -1
        stack[top, 0], stack[top, 1], stack[top, 3], stack[top, 4] = first, last, times, kind
        stack[top, 2] = last if times == 1 else first
    return at


@njit_no_refcount()
def _hash_slot(data: Bytes, slot: int, starts: Int64s, lengths: Int64s, keys: IdKeys, domain: int) -> np.uint64:
    return hash_bytes(data, starts[slot], lengths[slot], keys, domain)


@njit_no_refcount()
def _hash_listed(
    data: Bytes, texts: Bytes, slot: int, starts: Int64s, lengths: Int64s, keys: IdKeys
) -> np.uint64:  # fmt: skip
    """Return the hash of a text that may be an enum's."""
    if starts[slot] < 0 and lengths[slot] > 0:
        return hash_bytes(texts, -1 - starts[slot], lengths[slot], keys, IDS)
    return hash_bytes(data, starts[slot], lengths[slot], keys, IDS)


@njit_no_refcount()
def _visitor(data: Bytes, starts: Int64s, lengths: Int64s, keys: IdKeys) -> np.uint64:
    if lengths[USER] > 0:
        return _hash_slot(data, USER, starts, lengths, keys, IDS)
    return _hash_slot(data, SESSION, starts, lengths, keys, SESSIONS)


@njit_no_refcount()
def _emit(
    data: Bytes, texts: Bytes, message: int, line: int, kind: int, kind_hashes: npt.NDArray[np.uint64],
    kind_codes: Bytes, keys: IdKeys, event_domain: int, starts: Int64s, lengths: Int64s,
    numbers: npt.NDArray[np.float64], row: Any,
) -> None:  # fmt: skip
    row.message, row.line, row.kind = message, line, kind
    if kind == 0:
        name = _hash_listed(data, texts, KIND, starts, lengths, keys)
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
    row.category = _hash_listed(data, texts, CATEGORY, starts, lengths, keys)
    row.brand = _hash_listed(data, texts, BRAND, starts, lengths, keys)
    row.country = _hash_listed(data, texts, COUNTRY, starts, lengths, keys)
    row.item_start = starts[ITEM] if lengths[ITEM] > 0 else 0
    row.item_length = max(lengths[ITEM], 0)


@njit_no_refcount()
def _too_long(lengths: Int64s) -> bool:
    for slot in range(N_TEXTS):
        if lengths[slot] > MAX_ID_BYTES:
            return True
    return False


@njit(nogil=True)
def read_messages(
    data: Bytes, bounds: Int64s, messages: npt.NDArray[np.int32], program: Int64s, texts: Bytes, kind: int,
    kind_hashes: npt.NDArray[np.uint64], kind_codes: Bytes, keys: IdKeys, event_domain: int,
    rows: npt.NDArray[np.void], status: Bytes,
) -> tuple[int, int]:  # fmt: skip
    """Decode `messages` (all of one schema); return (rows written, messages done).

    Message m's Avro body is `data[bounds[m] + 5 : bounds[m + 1]]`, `program` and `texts` are
    its schema's (`schemas.decoder_program`). `kind` 0 takes it from the kind field. Ids are hashed
    with `keys`, event ids in `event_domain`. `status[i]` becomes OK, BROKEN or TOO_LONG; only
    an OK message leaves rows. Stops before a message whose rows would not fit.
    """
    starts, lengths = np.zeros(N_SLOTS, np.int64), np.empty(N_SLOTS, np.int64)
    numbers = np.zeros(N_SLOTS, np.float64)
    stack = np.empty((MOST_NESTED + 2, 5), np.int64)
    n_rows = 0
    for i in range(len(messages)):
        message = messages[i]
        at, end = bounds[message] + 5, bounds[message + 1]
        lengths[:] = MISSING
        first = n_rows
        has_lines = too_long = False
        lines_entry = lines_at = -1  # of lines that are read when all else was
        entry = 0
        while at >= 0:
            if entry >= len(program):
                if lines_entry < 0 or at != end:
                    break
                entry, at = lines_entry, lines_at
            elif program[entry, 0] < LINES:
                at = _read_field(
                    data, at, end, program[entry, 0], program[entry, 1], program[entry, 2], starts, lengths, numbers
                )
                entry += 1
                continue
            elif program[entry, 0] < FIRST_SKIPPED and program[entry, 0] != LINES:
                at = _read_other(data, at, end, program, entry, True, starts, lengths, numbers)
                entry += program[entry, 5]
                continue
            elif program[entry, 0] != LINES or program[entry, 3] == 1:
                if program[entry, 0] == LINES:
                    lines_entry, lines_at = entry, at
                at = _skip(data, at, end, program, entry, starts, lengths, numbers, stack)
                entry += program[entry, 5]
                continue
            has_lines = True
            while at >= 0:
                count, at = _block(data, at, end)
                if at < 0 or count == 0:
                    break
                for _ in range(count):
                    for slot in (ITEM, PRICE, QUANTITY, CATEGORY, BRAND):
                        lengths[slot] = MISSING
                    inner = entry + 1
                    while inner < entry + program[entry, 5]:
                        if program[inner, 0] < LINES:
                            at = _read_field(
                                data, at, end, program[inner, 0], program[inner, 1], program[inner, 2],
                                starts, lengths, numbers,
                            )  # fmt: skip
                        elif program[inner, 0] < FIRST_SKIPPED:
                            at = _read_other(data, at, end, program, inner, True, starts, lengths, numbers)
                        else:
                            at = _skip(data, at, end, program, inner, starts, lengths, numbers, stack)
                        if at < 0:
                            break
                        inner += program[inner, 5]
                    if at < 0:
                        break
                    if n_rows == len(rows):
                        return first, i
                    too_long = too_long or _too_long(lengths)
                    line = n_rows - first
                    _emit(
                        data, texts, message, line, kind, kind_hashes, kind_codes, keys, event_domain, starts, lengths,
                        numbers, rows[n_rows],
                    )  # fmt: skip
                    n_rows += 1
            if lines_entry >= 0:
                if at >= 0:
                    at = end
                break
            entry += program[entry, 5]
        if at == end and not has_lines:
            if n_rows == len(rows):
                return first, i
            too_long = _too_long(lengths)
            _emit(
                data, texts, message, 0, kind, kind_hashes, kind_codes, keys, event_domain, starts, lengths, numbers,
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
