import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.ranking.mmr_dpp import alike_to, greedy_dpp, mmr, similarity


def shop(n, seed, d=6):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (n, d)).astype(np.float32) + np.repeat(rng.normal(0, 2, (4, d)), -(-n // 4), axis=0)[:n]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.sort(rng.random(n))[::-1], similarity(vectors.astype(np.float32), np.zeros(n, np.int32))


def matrix(alike):
    found = np.empty((len(alike.known), len(alike.known)))
    for i in range(len(found)):
        alike_to(alike, i, found[i])
    return found


def slow_mmr(relevance, alike, strength, k):
    """As the definition has it, one item after the other."""
    order = []
    while len(order) < min(k, len(relevance)):
        left = [i for i in range(len(relevance)) if i not in order]
        closest = [max((alike[i, j] for j in order), default=0.0) for i in left]
        worth = [(1 - strength) * relevance[i] - strength * most for i, most in zip(left, closest, strict=True)]
        order.append(left[int(np.argmax(worth))])
    return order


@given(st.integers(1, 30), st.integers(0, 99), st.sampled_from([mmr, greedy_dpp]), st.floats(0, 1))
def test_an_order_names_each_item_once_and_without_strength_nothing_changes(n, seed, method, strength):
    relevance, alike = shop(n, seed)
    order = method(relevance, alike, strength, 10)
    assert len(order) == len(set(order.tolist())) == min(10, n)
    assert method(relevance, alike, 0.0, 10).tolist() == list(range(min(10, n)))


@given(st.integers(1, 30), st.integers(0, 99), st.floats(0, 1))
def test_the_kernel_takes_what_the_definition_takes(n, seed, strength):
    relevance, alike = shop(n, seed)
    assert mmr(relevance, alike, strength, 10).tolist() == slow_mmr(relevance, matrix(alike), strength, 10)


def test_alike_is_the_cosine_and_one_for_itself():
    _, alike = shop(40, 3)
    cosine = np.clip(alike.vectors @ alike.vectors.T, 0, 1)
    np.fill_diagonal(cosine, 1.0)
    assert np.allclose(matrix(alike), cosine, atol=1e-6)


@pytest.mark.parametrize("method", [mmr, greedy_dpp])
def test_more_strength_makes_lists_more_varied_and_less_relevant(method):
    inside, worth = [], []
    for strength in (0.0, 0.3, 0.6, 0.9):
        pairs, gained = [], []
        for seed in range(30):
            relevance, known = shop(40, seed)
            order, alike = method(relevance, known, strength, 10), matrix(known)
            pairs.append(np.mean([alike[a, b] for a, b in itertools.combinations(order, 2)]))
            gained.append(relevance[order].sum())
        inside.append(np.mean(pairs))
        worth.append(np.mean(gained))
    assert inside == sorted(inside, reverse=True)
    assert worth == sorted(worth, reverse=True)


def test_the_fast_greedy_step_is_the_one_of_the_determinant():
    relevance, alike = shop(12, 5)
    strength, chosen = 0.5, []
    quality = np.exp((1 - strength) / (2 * strength) * (relevance - relevance.max()))
    kernel = quality[:, None] * matrix(alike) * quality[None, :]
    for _ in range(5):
        best = max(
            (i for i in range(12) if i not in chosen),
            key=lambda i: np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]),
        )
        chosen.append(best)
    assert greedy_dpp(relevance, alike, strength, 5).tolist() == chosen


def test_items_without_vectors_are_alike_within_a_category():
    alike = similarity(np.zeros((3, 0), np.float32), np.array([1, 1, 0], np.int32))
    assert matrix(alike).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_a_determinant_takes_by_relevance_what_only_repeats():
    alike = similarity(np.repeat(np.eye(2, dtype=np.float32), 3, axis=0), np.zeros(6, np.int32))
    order = greedy_dpp(np.array([1.0, 0.9, 0.8, 0.3, 0.2, 0.1]), alike, 0.5, 6)
    assert order.tolist() == [0, 3, 1, 2, 4, 5]
