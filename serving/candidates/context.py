"""The context of one request, which its sources read."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.candidates.pool import Pool
from serving.rendering.items import RenderedReason
from serving.scoring.scorer import Scored
from serving.snapshot.snapshot import ServingSnapshot
from serving.snapshot.visitor import Visitor
from serving.snapshot.visitor_rows import UserVectors
from state.rows.purchase_rows import PurchaseRows

SEEDS = 5
"""How many of the latest items of the session have related items looked up."""


class RequestContext(NamedTuple):
    """One request of a batch, as its sources see it."""

    shop: ServingSnapshot
    visitor: Visitor
    pool: Pool
    scored: Scored | None
    i: int
    """Place of the request in the batch: its row in `scored`."""
    rows: npt.NDArray[np.int64]
    """Catalogue rows of the scored candidates."""
    vectors: UserVectors
    want: int
    """How many candidates are enough."""
    purchases: PurchaseRows | None = None
    """What the visitors of the batch bought, by place in it, where one of them may follow habits."""

    @property
    def lang(self) -> str:
        """The language of the reasons."""
        return self.visitor.request.lang

    def because(self, source: str, code: str, item: int) -> RenderedReason:
        """Return a reason that names an item."""
        return self.shop.reasons[source, code, self.lang, item]

    def seeds(self) -> list[int]:
        """Return the items in context, else the latest of the session, latest first."""
        visitor = self.visitor
        items = visitor.context if len(visitor.context) else visitor.session
        return list(dict.fromkeys(items.tolist()[::-1]))[:SEEDS]
