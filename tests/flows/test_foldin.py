import numpy as np
import pytest
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

from flows.fold.foldin import FOLD_ITEMS, vectors_for
from schemas.events import Kind
from schemas.ids import hash_id
from state.anchor import Anchor
from state.rows.user_rows import empty_users

D, N_ITEMS, REGULARIZATION, ALPHA = 16, 200, 0.05, 4.0
WEIGHTS = np.zeros(32)
WEIGHTS[[Kind.VIEW, Kind.PURCHASE, Kind.RATING]] = 1.0, 5.0, 1.0


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(1).normal(0, 0.3, (N_ITEMS, D)).astype(np.float32)


@pytest.fixture(scope="module")
def anchor(factors):
    lower = np.linalg.cholesky(factors.T @ factors + REGULARIZATION * np.eye(D))
    ids = sorted((f"i{k}" for k in range(N_ITEMS)), key=hash_id)
    hashes = np.array([hash_id(item) for item in ids], np.uint64)
    whitened = np.linalg.solve(lower, factors.T).T.astype(np.float32)
    return Anchor("a1", ids, hashes, np.ascontiguousarray(whitened), factors.T @ factors, ALPHA, WEIGHTS)


def users_with(*histories):
    users = empty_users(len(histories))
    for slot, history in enumerate(histories):
        users["n"][slot] = len(history)
        users["item"][slot, : len(history)] = [item for item, _ in history]
        users["kind"][slot, : len(history)] = [kind for _, kind in history]
    return users


def dense_scores(factors, anchor, history):
    """The half-step from its definition, in float64, as scores of all items."""
    confidence = np.ones(N_ITEMS)
    for item, kind in history:
        confidence[anchor.row_of(np.array([item], np.uint64))[0]] += ALPHA * WEIGHTS[kind]
    preference = (confidence > 1).astype(float)
    y = factors.astype(float)
    a = y.T @ y + y.T @ np.diag(confidence - 1) @ y + REGULARIZATION * np.eye(D)
    return y @ np.linalg.solve(a, y.T @ (confidence * preference))


@pytest.mark.parametrize("length", [1, 2, 20, FOLD_ITEMS])
def test_the_folded_vector_scores_like_the_batch_half_step(factors, anchor, length):
    rng = np.random.default_rng(length)
    items = rng.choice(anchor.item_hash, length, replace=False)
    history = [(item, rng.choice([Kind.VIEW, Kind.PURCHASE])) for item in items]
    history += history[: min(3, length)]
    scores = anchor.whitened @ vectors_for(users_with(history), np.array([0]), anchor)[0]
    assert np.abs(scores - dense_scores(factors, anchor, history)).max() <= 1e-4


def test_the_folded_vector_scores_like_implicit_recalculate_user(factors, anchor):
    history = [(item, Kind.PURCHASE) for item in anchor.item_hash[:10]]
    model = AlternatingLeastSquares(factors=D, regularization=REGULARIZATION, alpha=1.0, use_cg=False)
    model.item_factors = factors
    confidence = csr_matrix((np.full(10, 1 + ALPHA * 5, np.float32), (np.zeros(10), np.arange(10))), (1, N_ITEMS))
    expected = factors @ model.recalculate_user(0, confidence)
    scores = anchor.whitened @ vectors_for(users_with(history), np.array([0]), anchor)[0]
    assert np.abs(scores - expected).max() <= 1e-4


def test_many_users_at_once_get_the_bytes_of_one_at_a_time(anchor):
    rng = np.random.default_rng(3)
    histories = [[(item, Kind.VIEW) for item in rng.choice(anchor.item_hash, n)] for n in (0, 1, 5, 50)]
    users = users_with(*histories)
    together = vectors_for(users, np.arange(4), anchor)
    alone = [vectors_for(users, np.array([slot]), anchor)[0] for slot in range(4)]
    assert together.tobytes() == np.stack(alone).tobytes()
    assert not together[0].any()


def test_a_disliked_item_and_one_without_factor_add_nothing(anchor):
    a, b = anchor.item_hash[:2]
    plain = users_with([(a, Kind.VIEW)])
    marked = users_with([(b, Kind.VIEW), (hash_id("unknown"), Kind.VIEW), (a, Kind.VIEW), (b, Kind.DISLIKE)])
    one, other = (vectors_for(users, np.array([0]), anchor) for users in (plain, marked))
    assert one.tobytes() == other.tobytes()
