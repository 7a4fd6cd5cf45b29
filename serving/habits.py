"""What a customer who buys the same things again takes first on a new visit: what they bought most and last.

    weight(j) = Σ 2^(−age / HALF_LIFE) over the purchases of j

Own frequency is the strongest single signal for the next basket (Hu, He, Gao, Zhang, "Modeling Personalized Item
Frequency Information for Next-basket Recommendation", SIGIR 2020). Somebody who never buys a thing twice has no
habits: a shop of sofas does not offer the sofa again.
"""

import numpy as np
import numpy.typing as npt

HALF_LIFE_MS = 120 * 86_400_000
LEAST_PURCHASES = 5
LEAST_AGAIN = 0.02
"""Share of the purchases that are of something bought on an earlier day."""
DAY_MS = 86_400_000

Hashes = npt.NDArray[np.uint64]


def habits(items: Hashes, ts_ms: npt.NDArray[np.int64]) -> tuple[Hashes, npt.NDArray[np.float64]]:
    """Return (items, their share of the weight), heaviest first, equal ones by id hash; nothing without habits.

    `items`, `ts_ms`: the purchases of a customer, in any order.
    """
    nothing = np.zeros(0, np.uint64), np.zeros(0)
    if len(items) < LEAST_PURCHASES:
        return nothing
    distinct, which = np.unique(items, return_inverse=True)
    on_days = len(np.unique(np.stack((which, ts_ms // DAY_MS)), axis=1).T)
    if on_days - len(distinct) < LEAST_AGAIN * on_days:
        return nothing
    weight = np.zeros(len(distinct))
    np.add.at(weight, which, np.exp2((ts_ms - ts_ms.max()) / HALF_LIFE_MS))
    order = np.lexsort((distinct, -weight))
    return distinct[order], weight[order] / weight.sum()
