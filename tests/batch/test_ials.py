import numpy as np
from scipy.sparse import random as random_matrix

from batch.evaluation.ials import fit_ials


def test_a_half_step_solves_the_definition_and_the_seed_decides():
    matrix = random_matrix(40, 25, 0.2, "csr", np.float32, random_state=3)
    matrix.data[:] = np.round(matrix.data * 4 + 1)
    reg, unobserved, power = 0.05, 0.1, 0.7
    x, y = fit_ials(matrix, 6, reg, unobserved, power, iterations=2)
    again = fit_ials(matrix, 6, reg, unobserved, power, iterations=2)
    assert np.array_equal(x, again[0])
    # The items were solved last: each must fit the users exactly by the formula.
    for item in range(matrix.shape[1]):
        column = matrix[:, [item]].toarray().ravel().astype(float)
        users = np.flatnonzero(column)
        z = x.astype(float)
        scale = reg * (len(users) + unobserved * matrix.shape[0]) ** power
        a = unobserved * z.T @ z + (z[users].T * column[users]) @ z[users] + scale * np.eye(6)
        assert np.allclose(y[item], np.linalg.solve(a, column[users] @ z[users]), atol=1e-4)
