"""Lists with the departments of the past."""

from collections import Counter

import numpy as np
import pytest
from helpers.fold_oracle import Event
from helpers.recommenders import ask, items, recommender_of
from helpers.serving_rows import NOW, product
from hypothesis import given
from hypothesis import strategies as st

from serving.ranking.mmr_dpp import ALPHA, calibrated, department

names = st.sampled_from(["a", "b", "c", ""])


def divergence(shown, past):
    wanted = Counter(name for name in past if name)
    p = {name: n / wanted.total() for name, n in wanted.items()}
    return sum(
        share * np.log(share / ((1 - ALPHA) * list(shown).count(name) / max(len(shown), 1) + ALPHA * share))
        for name, share in p.items()
    )


def by_definition(relevance, departments, past, strength, k):
    order = []
    while len(order) < min(k, len(relevance)):
        worth = {
            i: (1 - strength) * relevance[i] - strength * divergence([departments[j] for j in [*order, i]], past)
            for i in range(len(relevance)) if i not in order
        }  # fmt: skip
        order.append(max(worth, key=lambda i: (round(worth[i], 9), -i)))
    return order


@given(st.lists(names, min_size=1, max_size=9), st.lists(names, max_size=9), st.integers(0, 99), st.floats(0, 0.99))
def test_each_place_goes_to_what_is_best_by_definition(departments, past, seed, strength):
    relevance = np.round(np.sort(np.random.default_rng(seed).random(len(departments)))[::-1], 3)
    order = calibrated(relevance, departments, past, strength, 5)
    assert order == by_definition(relevance, departments, past, strength, 5)
    assert calibrated(relevance, departments, past, 0.0, 5) == list(range(min(5, len(relevance))))
    assert calibrated(relevance, departments, [], strength, 5) == list(range(min(5, len(relevance))))


def test_more_strength_brings_the_shares_closer():
    rng, found = np.random.default_rng(1), []
    for strength in (0.0, 0.2, 0.5, 0.9):
        apart = []
        for _ in range(30):
            departments = rng.choice(["a", "b", "c", "d"], 60, p=[0.7, 0.1, 0.1, 0.1]).tolist()
            order = calibrated(np.sort(rng.random(60))[::-1], departments, ["b"] * 5 + ["c"] * 5, strength, 10)
            apart.append(divergence([departments[i] for i in order], ["b", "c"]))
        found.append(np.mean(apart))
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.2 < 1.0 < found[0]


def test_a_request_gets_lists_with_the_departments_of_its_past():
    events = [Event(f"v{n}", f"d{k}", NOW - 86_400_000 + 1000 * k) for n in range(9) for k in range(8)]
    events += [Event(f"w{n}", f"f{k}", NOW - 86_400_000 + 1000 * k) for n in range(3) for k in range(8)]
    events += [Event("ann", "d0", NOW - 3000), Event("ann", "f0", NOW - 2000)]
    products = [product(f"{c}{k}", f"{c}{k}", category=f"{c}/x") for c in "df" for k in range(8)]
    recommender, _ = recommender_of(events, products)
    shares = {}
    for strength in (0.0, 0.9):
        answer = ask(
            recommender, user="ann", count=6, repeat="exclude", diversity=strength, diversity_method="calibrated"
        )
        shares[strength] = Counter(item[0] for item in items(answer))
    assert abs(shares[0.9]["d"] - 3) <= abs(shares[0.0]["d"] - 3)
    assert shares[0.9] == {"d": 3, "f": 3}


@pytest.mark.parametrize(("path", "first"), [("a/b/c", "a"), ("a", "a"), ("", "")])
def test_a_department_is_the_first_part_of_a_path(path, first):
    assert department(path) == first
