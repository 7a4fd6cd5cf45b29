import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.diversity import greedy_dpp, mmr, similarity


def shop(n, seed, d=6):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (n, d)).astype(np.float32) + np.repeat(rng.normal(0, 2, (4, d)), -(-n // 4), axis=0)[:n]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.sort(rng.random(n))[::-1], similarity(vectors.astype(np.float32), np.zeros(n, np.int32))


def matrix(alike_to, n):
    return np.array([alike_to(i) for i in range(n)])


@given(st.integers(1, 30), st.integers(0, 99), st.sampled_from([mmr, greedy_dpp]), st.floats(0, 1))
def test_an_order_names_each_item_once_and_without_strength_nothing_changes(n, seed, method, strength):
    relevance, alike = shop(n, seed)
    order = method(relevance, alike, strength, 10)
    assert len(order) == len(set(order)) == min(10, n)
    assert method(relevance, alike, 0.0, 10) == list(range(min(10, n)))


@pytest.mark.parametrize("method", [mmr, greedy_dpp])
def test_more_strength_makes_lists_more_varied_and_less_relevant(method):
    inside, worth = [], []
    for strength in (0.0, 0.3, 0.6, 0.9):
        pairs, gained = [], []
        for seed in range(30):
            relevance, alike_to = shop(40, seed)
            order, alike = method(relevance, alike_to, strength, 10), matrix(alike_to, 40)
            pairs.append(np.mean([alike[a, b] for a, b in itertools.combinations(order, 2)]))
            gained.append(relevance[order].sum())
        inside.append(np.mean(pairs))
        worth.append(np.mean(gained))
    assert inside == sorted(inside, reverse=True)
    assert worth == sorted(worth, reverse=True)


def test_the_fast_greedy_step_is_the_one_of_the_determinant():
    relevance, alike_to = shop(12, 5)
    strength, chosen = 0.5, []
    quality = np.exp((1 - strength) / (2 * strength) * (relevance - relevance.max()))
    kernel = quality[:, None] * matrix(alike_to, 12) * quality[None, :]
    for _ in range(5):
        best = max(
            (i for i in range(12) if i not in chosen),
            key=lambda i: np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]),
        )
        chosen.append(best)
    assert greedy_dpp(relevance, alike_to, strength, 5) == chosen


def test_items_without_vectors_are_alike_within_a_category():
    alike_to = similarity(np.zeros((3, 0), np.float32), np.array([1, 1, 0], np.int32))
    assert matrix(alike_to, 3).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
