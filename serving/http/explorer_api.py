"""The explorer page and its data: users, items, live numbers."""

from collections import Counter as Counts
from collections import deque
from importlib import resources
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from schemas.events import Kind
from schemas.ids import hash_id, hash_ids
from serving.engine import clock
from serving.engine.metrics import ANSWERS
from serving.engine.recommender import Recommender
from serving.http.errors import json
from serving.http.routes import PathId
from serving.request.requests import RecommendRequest
from serving.rules.model import PLACEMENTS
from serving.snapshot.recent_events import recent_events
from serving.snapshot.visitor import Visitor, resolve
from state.rows.decay import value_at
from state.rows.item_rows import PAIR_UNIT
from state.rows.lane_rows import COUNT, EVENTS, MAX_TS

MAX_LISTED = 50
FILES = {
    "explorer.js": "text/javascript", "explorer.css": "text/css",
    "rules_editor.js": "text/javascript",
    "diff.min.js": "text/javascript", "uPlot.iife.min.js": "text/javascript", "uPlot.min.css": "text/css",
}  # fmt: skip
POLICY = "default-src 'self'; img-src http: https: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


class Explorer:
    """Routes of the page. It keeps recent users, in memory only, so that one can be picked."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._noted: deque[str] = deque(maxlen=10 * MAX_LISTED)  # some of them again and again
        self.router = APIRouter()
        self._add_routes()

    def note_user(self, user: object) -> None:
        """Record the user of a request or an event."""
        if isinstance(user, str) and user:
            self._noted.append(user)

    def users(self) -> list[str]:
        """Return recent users who have a row: none who were only named, or have been erased since."""
        noted = list(dict.fromkeys(reversed(self._noted)))
        subjects, no = hash_ids(noted).tolist(), [False] * len(noted)
        rows = self._recommender.shop.read_visitors(subjects, no, no).rows().users
        return [user for user, seen in zip(noted, rows["seen"].tolist(), strict=True) if seen][:MAX_LISTED]

    def user(self, user: str) -> dict[str, Any]:
        """Return a user's recent events, newest first, and the profile."""
        shop = self._recommender.shop
        rows = shop.read_visitors([hash_id(user)], [False], [False]).rows().users
        request = RecommendRequest(user=user)
        plan = resolve(request, PLACEMENTS["home"], shop.settings)
        now_ms = clock.now_ms()
        visitor = Visitor(request, plan, rows, recent_events(rows, now_ms, 0), 0, now_ms)
        events = []
        for item, kind, ts_ms in zip(visitor.history_items.tolist(), visitor.kinds, visitor.times_ms, strict=True):
            known = shop.catalogue.get(item)
            events.append({
                "item": known.item if known else "", "title": known.title if known else f"{item:016x}",
                "image_url": known.image_url if known else "", "kind": Kind(int(kind)).name.lower(),
                "ts_ms": int(ts_ms),
            })  # fmt: skip
        words = (*shop.catalogue.category.view(0).words, *shop.catalogue.brand.view(0).words)
        likes = sorted({word for word in words if word and hash_id(word) & 0xFFFFFFFF in visitor.liked})
        return {"user": user, "n_events": visitor.n_events, "likes": likes, "events": events[::-1]}

    def item(self, item: str) -> dict[str, Any]:
        """Return an item's facts, neighbours and popularity. Raises 404 for one that is not known."""
        shop, now_ms = self._recommender.shop, clock.now_ms()
        known = shop.catalogue.get(hash_id(item))
        if known is None:
            raise HTTPException(404, "the item is not known")
        slot = int(shop.slots_of(np.array([hash_id(item)], np.uint64), now_ms, 0)[0])
        rows, n = shop.items.rows, int(shop.items.rows["n"][slot])
        weights = rows["weight"][slot, :, :n].sum(axis=0) / PAIR_UNIT
        near = sorted(zip(weights.tolist(), rows["neighbour"][slot, :n].tolist(), strict=True), reverse=True)[:20]
        short, long = (
            value_at(
                rows["pop_epoch"][slot, h], rows["pop"][slot, h, 0], rows["pop"][slot, h, 1], shop.half_lives[h], now_ms
            )
            for h in range(2)
        )
        return {
            **known._asdict(), "views": int(rows["kinds"][slot, 0]), "carts": int(rows["kinds"][slot, 1]),
            "purchases": int(rows["kinds"][slot, 2]), "popularity_short": float(short), "popularity_long": float(long),
            "trending": shop.trends(hash_id(item)), "first_ms": int(rows["first_ms"][slot]),
            "neighbours": [
                {"item": shop.text(h), "title": shop.title(h, f"{h:016x}"), "weight": round(weight, 2)}
                for weight, h in near
            ],
        }  # fmt: skip

    def live(self) -> dict[str, Any]:
        """Return counters and ages; the page makes rates of two looks."""
        recommender, now_ms = self._recommender, clock.now_ms()
        totals = recommender.shop.totals
        answers: Counts[str] = Counts()
        for sample in next(iter(ANSWERS.collect())).samples:
            if sample.name.endswith("_total"):
                answers[sample.labels["fallback"]] += int(sample.value)
        newest = int(totals[MAX_TS])
        return {
            "at_ms": now_ms, "events": int(totals[EVENTS]), "weight": int(totals[COUNT]),
            "newest_event_age_s": max(now_ms - newest, 0) / 1000 if newest else None,
            "answers": sum(answers.values()), "fallbacks": dict(answers), "items": len(recommender.shop.catalogue),
            "generation": recommender.generation, "anchor": recommender.anchor,
            "rules_version": recommender.shop.rules.version, "without_store": recommender.store.is_away,
        }  # fmt: skip

    def _add_routes(self) -> None:
        router = self.router

        @router.get("/v1/users")
        async def users() -> Response:
            """Recent users who have a row, newest first."""
            await self._recommender.store.ready()
            return json({"users": self.users()})

        @router.get("/v1/users/{user}")
        async def user(user: PathId) -> Response:
            """A user's recent events and profile."""
            await self._recommender.store.ready()
            return json(self.user(user))

        @router.get("/v1/items/{item}")
        async def item(item: PathId) -> Response:
            """An item's facts, neighbours and popularity."""
            await self._recommender.store.ready()
            return json(self.item(item))

        @router.get("/v1/live")
        async def live() -> Response:
            """Live counters."""
            return json(self.live())

        @router.get("/", include_in_schema=False)
        async def page() -> Response:
            return _file("index.html", "text/html; charset=utf-8")

        @router.get("/explorer/{name}", include_in_schema=False)
        async def file(name: str) -> Response:
            if name not in FILES:
                raise HTTPException(404, "there is no such file")
            return _file(name, FILES[name])


def _file(name: str, kind: str) -> Response:
    body = resources.files("serving").joinpath("explorer", name).read_bytes()
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return Response(body, headers=headers, media_type=kind)
