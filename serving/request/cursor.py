"""The cursor of the next page. It holds the items of the pages before, so the server keeps no state."""

import base64
import binascii

import numpy as np
import numpy.typing as npt

MAX_SHOWN = 1000
NOTHING = np.zeros(0, np.uint64)

Hashes = npt.NDArray[np.uint64]


class BadCursor(ValueError):
    """The cursor is none that an answer gave."""


def encode_cursor(shown: Hashes) -> str | None:
    """Return the cursor behind these items' id hashes; None when they are too many to go on."""
    return None if len(shown) > MAX_SHOWN else base64.urlsafe_b64encode(shown.tobytes()).decode()


def decode_cursor(cursor: str | None) -> Hashes:
    """Return the id hashes of what earlier pages showed. Raises BadCursor."""
    if not cursor:
        return NOTHING
    try:
        data = base64.b64decode(cursor.encode(), b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b"?"
    if len(data) % 8 or len(data) > 8 * MAX_SHOWN:
        raise BadCursor("is none that an answer gave")
    return np.frombuffer(data, np.uint64)
