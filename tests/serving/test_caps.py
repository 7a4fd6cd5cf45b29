from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.ranking.caps import fill
from serving.ranking.fill_places import EMPTY, FIXED
from serving.rules.model import Cap


class Column:
    def __init__(self, codes):
        self.of = np.array(codes, np.int32)

    def codes(self, rows):
        return self.of[rows]


def by_definition(order, rows, caps, columns, fixed, offset, count):
    """Place after place, the best candidate that waits and that no cap holds back."""
    counted = [[] for _ in caps]
    for c, cap in enumerate(caps):
        counted[c] += [columns[cap.by].of[row] for position, row in fixed.items() if position <= cap.first]
    waiting, places, held, ended = list(order), [], set(), False
    for position in range(offset + 1, offset + count + 1):
        if position in fixed:
            places.append(FIXED)
            continue
        found = EMPTY
        for k in [] if ended else list(waiting):
            codes = [columns[cap.by].of[rows[k]] for cap in caps]
            full = [
                c for c, cap in enumerate(caps)
                if position <= cap.first and codes[c] and counted[c].count(codes[c]) >= cap.most
            ]  # fmt: skip
            if full:
                held.add((full[0], k))
                continue
            for c, cap in enumerate(caps):
                if position <= cap.first:
                    counted[c].append(codes[c])
            waiting.remove(k)
            found = k
            break
        places.append(found)
        ended = ended or found == EMPTY
    return places, held


@given(st.data())
def test_places_are_filled_as_defined(data):
    n = data.draw(st.integers(0, 12))
    code = st.lists(st.integers(0, 3), min_size=20, max_size=20)
    columns = {"category": Column(data.draw(code)), "brand": Column(data.draw(code))}
    cap = st.builds(
        Cap, id=st.just("c"), action=st.just("cap"), by=st.sampled_from(["category", "brand"]),
        most=st.integers(1, 3), first=st.integers(1, 10),
    )  # fmt: skip
    caps = data.draw(st.lists(cap, max_size=2))
    rows = np.array(data.draw(st.permutations(range(12)))[:n], np.int64)
    order = np.array(data.draw(st.permutations(range(n))), np.int64)
    fixed = data.draw(st.dictionaries(st.integers(1, 12), st.integers(12, 19), max_size=3))
    offset, count = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 8))
    places, held = fill(order, rows, caps, SimpleNamespace(**columns), fixed, offset, count)
    expected, expected_held = by_definition(order.tolist(), rows, caps, columns, fixed, offset, count)
    assert places.tolist() == expected
    assert {(int(c), int(k)) for c, k in zip(*np.nonzero(held), strict=True)} == expected_held
