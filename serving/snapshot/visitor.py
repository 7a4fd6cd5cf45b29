"""The visitor of one request: the request with its placement's defaults, and the user's row."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from schemas.events import Kind
from schemas.ids import hash_ids, hash_visitors
from serving.request.cursor import decode_cursor
from serving.request.requests import RecommendRequest
from serving.rules.acting import RequestFacts
from serving.rules.model import Placement
from serving.settings import ServingSettings
from serving.snapshot.evidence import evidence_of
from serving.snapshot.recent_events import Recent
from state.rows.session import SESSION_EVENTS
from state.rows.user_rows import KIND_MASK, UserRows

Hashes = npt.NDArray[np.uint64]
DAY_MS = 86_400_000
NOTHING: Hashes = np.zeros(0, np.uint64)


@dataclass(slots=True)
class ResolvedOptions:
    """The options of a request: its own where set, else its placement's, else those of the settings."""

    strategy: str
    count: int
    repeat: str
    diversity: float
    explore: int
    in_stock: bool
    without_bought: bool
    cache_s: float
    fields: tuple[str, ...]
    """Product fields that items carry."""


def resolve(request: RecommendRequest, placement: Placement, settings: ServingSettings) -> ResolvedOptions:
    """Return the plan of a request."""
    in_stock, bought = request.exclude_out_of_stock, request.exclude_purchased
    return ResolvedOptions(
        request.strategy or placement.strategy,
        request.count or placement.count or settings.default_count,
        request.repeat or placement.repeat,
        placement.diversity if request.diversity is None else request.diversity,
        placement.explore if request.explore is None else request.explore,
        settings.exclude_out_of_stock if in_stock is None else in_stock,
        settings.exclude_purchased if bought is None else bought,
        placement.cache_s,
        placement.fields if request.fields is None else request.fields,
    )


class Visitor:
    """The user of one request, read from row `i` of `users`; nobody has an empty row."""

    def __init__(
        self, request: RecommendRequest, plan: ResolvedOptions, users: UserRows, recent: Recent, i: int, now_ms: int,
        refused: Hashes = NOTHING, purchased: Hashes = NOTHING,
    ) -> None:  # fmt: skip
        """`refused`, `purchased`: what the rows of refusals and purchases hold, as far as they were read."""
        # Most requests need little of what follows, so it is computed on first use.
        self.request, self.plan, self.now_ms = request, plan, now_ms
        self._users, self._recent, self._i = users, recent, i
        self._refused, self._purchased = refused, purchased

    @cached_property
    def _user(self) -> np.void:
        user: np.void = self._users[self._i]
        return user

    @property
    def running(self) -> bool:
        """Whether the latest events are a session that still runs."""
        return bool(self._recent.running[self._i])

    @property
    def _has_bought(self) -> bool:
        return bool(self._recent.bought[self._i])

    @property
    def refuses(self) -> bool:
        """Whether there is something that must not be shown."""
        bought = self.plan.without_bought and (self._has_bought or len(self._purchased) > 0)
        return bought or len(self._refused) > 0 or bool(self._recent.removed[self._i])

    @cached_property
    def context(self) -> Hashes:
        """The items the request names."""
        return hash_ids(self.request.items)

    @property
    def own(self) -> Hashes:
        """The visitor's latest events; with the strategy `session` only those of a running session."""
        if self.plan.strategy == "session" and not self.running:
            return NOTHING
        return self._recent.item[self._i, : self._recent.n[self._i]]

    @property
    def level(self) -> str:
        """The place on the fallback ladder of an answer from the visitor's own events."""
        return "personalised" if len(self.own) else "session"

    @cached_property
    def session(self) -> Hashes:
        """The session for the mixture, oldest first: the running one and the context, else the latest history."""
        if not self.request.items:
            return self.own
        return np.concatenate((self.own if self.running else NOTHING, self.context))[-SESSION_EVENTS:]

    @cached_property
    def history_items(self) -> Hashes:
        """Id hashes of the items of the history, oldest first."""
        items: npt.NDArray[np.uint64] = self._user["item"][: self._user["n"]]
        return items

    @cached_property
    def kinds(self) -> npt.NDArray[np.uint8]:
        """The kind of each event of the history (`schemas.events.Kind`)."""
        kinds: npt.NDArray[np.uint8] = self._user["kind"][: self._user["n"]] & np.uint8(KIND_MASK)
        return kinds

    def refused(self) -> Hashes:
        """Return what must not be shown.

        That is what the visitor disliked, sent back or rated low, what the running session took out of the cart and,
        if so planned, what was bought, however long ago.
        """
        parts = [self._refused, self._taken_out()]
        if self.plan.without_bought:
            parts += [self._purchased, self.history_items[self.kinds == Kind.PURCHASE]]
        return np.concatenate(parts)

    def _taken_out(self) -> Hashes:
        """Return what the running session took out of the cart and did not put back or buy."""
        if not self._recent.removed[self._i]:
            return NOTHING
        out: set[int] = set()
        first = int(self._recent.first[self._i])
        for item, kind in zip(self.history_items[first:].tolist(), self.kinds[first:].tolist(), strict=True):
            if kind == Kind.REMOVE_FROM_CART:
                out.add(item)
            elif kind in (Kind.ADD_TO_CART, Kind.PURCHASE):
                out.discard(item)
        return np.array(sorted(out), np.uint64)

    @property
    def n_kept_out(self) -> int:
        """The number of items not to be shown besides those of the history."""
        return len(self._refused) + (len(self._purchased) if self.plan.without_bought else 0)

    @property
    def n_events(self) -> int:
        """The number of all events of the user."""
        return int(self._users["seen"][self._i])

    @cached_property
    def times_ms(self) -> npt.NDArray[np.int64]:
        """When the events of the history happened."""
        gaps = self._user["gap_ms"][1 : len(self.history_items)].astype(np.int64)
        back = np.concatenate((np.cumsum(gaps[::-1])[::-1], [0])) if len(self.history_items) else np.zeros(0, np.int64)
        return (int(self._user["last_ms"]) - back).astype(np.int64)

    @cached_property
    def bought(self) -> frozenset[int]:
        """Id hashes of the purchases in the history."""
        if not self._has_bought:
            return frozenset()
        return frozenset(self.history_items[self.kinds == Kind.PURCHASE].tolist())

    def evidence(self, item: int) -> int:
        """Return the strongest thing that the history holds about an item (`evidence_of`)."""
        return evidence_of(self.history_items, self._user["kind"], len(self.history_items), np.uint64(item))

    @property
    def held_back(self) -> Hashes:
        """The items that only repurchases may show before all others: those of the session, and in context."""
        return self.session if self.plan.repeat in ("exclude", "new_first") else NOTHING

    @property
    def shown_last(self) -> Hashes:
        """The items that stand behind all others where these are too few, the latest first; none in context."""
        seen, context = [*self.session.tolist()[::-1], *self.own.tolist()[::-1]], set(self.context.tolist())
        return np.array([item for item in dict.fromkeys(seen) if item not in context], np.uint64)

    @property
    def may_follow_habits(self) -> bool:
        """Whether the request is a new visit that may show again what was bought."""
        return not self.running and may_follow(self.request, self.plan)

    @cached_property
    def purchase_intervals(self) -> dict[int, tuple[float, int]]:
        """By item bought: median days between its purchases (0: bought once), and when it was last bought."""
        times: dict[int, list[int]] = {}
        bought = self.kinds == Kind.PURCHASE
        for item, ts_ms in zip(self.history_items[bought].tolist(), self.times_ms[bought].tolist(), strict=True):
            times.setdefault(item, []).append(ts_ms)
        found = {}
        for item, at in times.items():
            gaps = np.diff(sorted(at)) / DAY_MS
            gaps = gaps[gaps > 0]
            found[item] = (float(np.median(gaps)) if len(gaps) else 0.0, max(at))
        return found

    @cached_property
    def liked(self) -> frozenset[int]:
        """Low 32 bits of the id hashes of the categories and brands with some weight."""
        ids, weights = self._user["affinity_id"], self._user["affinity"]
        return frozenset(ids[weights > 0].tolist())

    @cached_property
    def price_ln(self) -> tuple[float, float] | None:
        """Mean and spread of ln(price) of what the user looks at; None with fewer than three prices."""
        n = int(self._user["price_n"])
        if n < 3:
            return None
        mean = int(self._user["price_sum"]) / 1000 / n
        square = int(self._user["price_square"]) / 1_000_000 / n
        return mean, float(np.sqrt(max(square - mean * mean, 0.01)))

    @cached_property
    def shown(self) -> Hashes:
        """The items that earlier pages of this list showed."""
        return decode_cursor(self.request.cursor)

    def facts(self) -> RequestFacts:
        """Return the facts that rules' conditions can use."""
        request = self.request
        return RequestFacts(
            request.placement or "", request.country or "", request.user or "", self.now_ms, self.n_events,
            int(self._user["counts"][2]), len(request.items), self.liked,
        )  # fmt: skip


def may_follow(request: RecommendRequest, plan: ResolvedOptions) -> bool:
    """Return whether an answer may follow habits, if it is one of a new visit."""
    return plan.repeat in ("allow", "new_first") and not request.items


def subjects_of(requests: Sequence[RecommendRequest]) -> list[int]:
    """Return the id hashes of the user rows that requests are about, 0 for none."""
    hashes: list[int] = hash_visitors([(one.user, one.session) for one in requests]).tolist()
    return hashes
