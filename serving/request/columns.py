"""Facts about items as growing columns, so that a condition over all items is a few numpy calls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
WORD_BYTES = 200
"""What a distinct word of a column takes, about."""


class Text(NamedTuple):
    """Texts as codes into a list of distinct words; the empty text is that of an item that has none."""

    codes: npt.NDArray[np.int32]
    words: list[str]


class TextColumn:
    """A text for every row. A word that no row has any more is forgotten, and its code given to another."""

    def __init__(self, capacity: int) -> None:
        self._codes = np.zeros(capacity, np.int32)
        self._words: list[str] = [""]
        self._n_rows = [0]
        """Of each word: how many rows have it; the empty one's are not counted."""
        self._code_of = {"": 0}
        self._free: list[int] = []

    @classmethod
    def of(cls, words: Sequence[str]) -> "TextColumn":
        """Return a column with these texts."""
        column = cls(max(len(words), 1))
        for row, word in enumerate(words):
            if word:
                column.set(row, word)
        return column

    @property
    def n_bytes(self) -> int:
        """About how much memory the column takes."""
        return self._codes.nbytes + WORD_BYTES * len(self._words)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` rows."""
        self._codes = grown(self._codes, capacity)

    def make_room(self, n: int) -> None:
        """Make room for `n` rows, and for some more if that needs new memory."""
        if n > len(self._codes):
            self.grow(2 * n)

    def set(self, row: int, word: str) -> None:
        """Put a text into a row."""
        before = int(self._codes[row])
        if self._words[before] == word:
            return
        code = self._code_of.get(word)
        if code is None:
            code = self._new(word)
        self._n_rows[code] += 1
        self._codes[row] = code
        if before:
            self._n_rows[before] -= 1
            if not self._n_rows[before]:
                del self._code_of[self._words[before]]
                self._words[before] = ""
                self._free.append(before)

    def _new(self, word: str) -> int:
        if self._free:
            code = self._free.pop()
            self._words[code] = word
        else:
            code = len(self._words)
            self._words.append(word)
            self._n_rows.append(0)
        self._code_of[word] = code
        return code

    def copy(self, n: int) -> "TextColumn":
        """Return the first n rows, to be read: they stay as they are."""
        same = TextColumn(0)
        same._codes, same._words = self._codes[:n].copy(), self._words.copy()
        return same

    def get(self, row: int) -> str:
        """Return the text of a row."""
        return self._words[int(self._codes[row])]

    def code_of(self, word: str) -> int:
        """Return the number that the rows with a text have; 0 where none has it.

        >>> TextColumn.of(["a", "", "b"]).code_of("b"), TextColumn.of(["a"]).code_of("b")
        (2, 0)
        """
        return self._code_of.get(word, 0)

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
