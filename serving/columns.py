"""Facts about items as growing columns, so that a condition over all items is a few numpy calls."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


class Text(NamedTuple):
    """Texts as codes into a list of distinct words; the empty text is that of an item that has none."""

    codes: npt.NDArray[np.int32]
    words: list[str]


class TextColumn:
    """A text for every row."""

    def __init__(self, capacity: int) -> None:
        self._codes = np.zeros(capacity, np.int32)
        self._words: list[str] = [""]
        self._code_of = {"": 0}

    def grow(self, capacity: int) -> None:
        self._codes = grown(self._codes, capacity)

    def set(self, row: int, word: str) -> None:
        code = self._code_of.get(word)
        if code is None:
            code = self._code_of[word] = len(self._words)
            self._words.append(word)
        self._codes[row] = code

    def get(self, row: int) -> str:
        return self._words[int(self._codes[row])]

    def codes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return a number per row that is equal where the texts are, 0 where there is none."""
        return self._codes[rows]

    def view(self, n: int) -> Text:
        """Return the first n rows."""
        return Text(self._codes[:n], self._words)

    def some(self, rows: npt.NDArray[np.int64]) -> Text:
        """Return some rows, with the words they have."""
        there, codes = np.unique(self._codes[rows], return_inverse=True)
        return Text(codes.astype(np.int32), [self._words[code] for code in there.tolist()])


def grown(column: npt.NDArray[Any], capacity: int) -> npt.NDArray[Any]:
    """Return the column with room for `capacity` rows; new ones are zero."""
    out = np.zeros(capacity, column.dtype)
    out[: len(column)] = column
    return out
