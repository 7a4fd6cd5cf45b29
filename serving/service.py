"""The recommender: a pure reading of rows, answered in batches. HTTP and gRPC both call it."""

import math
import time
import uuid
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.events import FIRST_NEGATIVE_KIND, Kind
from schemas.ids import hash_id
from serving.blend import REPEAT_MODES, Scored, Scorer
from serving.candidates import BY_POPULARITY, BY_REPEAT
from serving.catalogue import Catalogue, Item
from serving.diversity import METHODS, similarities
from serving.item_cache import ItemCache
from serving.mixture import DEFAULT, ScoreConfig, params_from
from serving.new_items import NewItems
from serving.reasons import Reason, reason
from serving.requests import Answer, Recommendation, RecommendRequest
from serving.retrieval import VectorIndex
from state import keys, lane_rows
from state.decay import NO_SCORE, REFERENCE_MS
from state.item_rows import ADJ, PAIR_UNIT
from state.session import SESSION_EVENTS
from state.settings import Settings
from state.slot_map import ABSENT
from state.store import Store, StoreUnavailable
from state.user_rows import KIND_MASK, UserRows, decode_users, empty_users
from state.vector_rows import decode_vector

SLOW_AGE_MS = 5_000
"""Rows that only describe a candidate may be older than those of the session's own items."""
TRENDING = 1.5
MAX_COUNTED = 5_000
"""Items that pass a filter whose weights are looked up to fill an answer."""
BREAK_MS = 1_000
"""After Redis failed, answers come from memory for so long before it is tried again."""

Ids = npt.NDArray[np.uint64]


class Recommender:
    """Answers requests from one generation's rows. One thread calls it."""

    def __init__(self, store: Store, settings: Settings, generation: str) -> None:
        self._store, self._settings, self.generation = store, settings, generation
        self._prefixes = [keys.prefix(generation, lane) for lane in range(settings.n_lanes)]
        self.catalogue = Catalogue(self._prefixes)
        self._items = ItemCache(settings.server_cached_items, self._prefixes)
        self._half_lives = (int(settings.short_half_life_s * 1000), int(settings.long_half_life_s * 1000))
        self._scorer = Scorer(DEFAULT, ScoreConfig(*self._half_lives, 120))
        self._totals = np.zeros(lane_rows.SIZE, np.int64)
        self._last_popular: list[tuple[int, float, bool]] = []
        self._trending: set[int] = set()
        self._broken_until_ms = 0
        self.index: VectorIndex | None = None

    def take_over(self, index: VectorIndex) -> None:
        """Answer from this anchor from now on."""
        index.new_items.watch(self.catalogue.hashes())
        self._items.use_anchor(index.anchor)
        self._scorer = Scorer(params_from(index.anchor.mixture), self._scorer.config)
        self.index = index

    def become(self, other: "Recommender") -> None:
        """Answer as `other` does from now on: another generation, loaded aside."""
        self.__dict__.update(other.__dict__)

    @property
    def anchor(self) -> str | None:
        return self.index.version if self.index else None

    def warm_up(self) -> None:
        """Compile what the first request needs."""
        self._scorer.warm_up()

    def refresh(self) -> None:
        """Follow the rows that are read ahead of requests: catalogue, totals, the list of everything."""
        added = self.catalogue.refresh(self._store)
        if self.index is not None:
            self.index.new_items.watch(added)
            self._renew_new_items(self.index.new_items)
        self._totals = sum_totals(self._store.read([keys.lane_globals(prefix) for prefix in self._prefixes]))
        self._last_popular = self._scope(lane_rows.ALL, 0)
        self._trending = {item for item, _, trending in self._last_popular if trending}

    def _renew_new_items(self, new_items: NewItems) -> None:
        due = new_items.due()
        if len(due):
            self._items.slots.begin_round()
            self._items.ensure(self._store, due, time.time_ns() // 1_000_000, SLOW_AGE_MS)
            new_items.renew(due, self._items.rows, self._items.slots)

    def recommend(self, requests: Sequence[RecommendRequest], now_ms: int) -> list[Answer]:
        """Answer requests together; each as it would be answered alone."""
        started = time.perf_counter()
        if now_ms < self._broken_until_ms:
            return [self._from_memory(request) for request in requests]
        try:
            answers = self._recommend(requests, now_ms)
        except StoreUnavailable:
            self._broken_until_ms = now_ms + BREAK_MS
            answers = [self._from_memory(request) for request in requests]
        for answer in answers:
            answer.milliseconds = round((time.perf_counter() - started) * 1000, 3)
        return answers

    def similar_items(self, item: str, count: int, lang: str = "en") -> Answer:
        """Return items that occur together with `item`, strongest first; by factors where none is known."""
        item_hash = hash_id(item)
        now_ms = time.time_ns() // 1_000_000
        self._items.slots.begin_round()
        self._items.ensure(self._store, np.array([item_hash], np.uint64), now_ms, self._settings.item_ttl_ms)
        slot = int(self._items.slots.find(np.array([item_hash], np.uint64))[0])
        n = int(self._items.rows.n[slot])
        weights = self._items.rows.weight[slot, :, :n].astype(float).sum(axis=0) / PAIR_UNIT
        ranked = sorted(zip(self._items.rows.neighbour[slot, :n].tolist(), weights.tolist(), strict=True),
                        key=lambda pair: (-pair[1], pair[0]))  # fmt: skip
        chosen = _Chosen(self, count, {item_hash}, True)
        title = {"item": self._title(item_hash, item)}
        for other, score in ranked:
            chosen.add(other, score, "cooccurrence", reason("bought_together", lang, title, item=item))
        if self.index is not None:
            for other, score in self.index.similar(item_hash, count + 1):
                chosen.add(other, score, "vector", reason("similar_to", lang, title, item=item))
        fallback = "cooccurrence" if chosen.found else "popular"
        self._add_popular(chosen, lang)
        return self._answer(chosen, fallback)

    def popular(self, scope: str, name: str, count: int, lang: str = "en") -> Answer:
        """Return the heaviest items of everything, a category, a brand or a country."""
        kind = {"all": 0, "category": 1, "brand": 2, "country": 3}[scope]
        chosen = _Chosen(self, count, set(), self._settings.exclude_out_of_stock)
        label = name or "the whole shop"
        for item, score, trending in self._scope(kind, hash_id(name)):
            chosen.add(item, score, "popular", reason(_popular_code(trending), lang, scope=label))
        return self._answer(chosen, "popular" if chosen.found else "nothing_known")

    def _recommend(self, requests: Sequence[RecommendRequest], now_ms: int) -> list[Answer]:
        users = self._read_users(requests)
        sessions, histories = [], []
        for i, request in enumerate(requests):
            history, in_session = _session_of(users, i, now_ms, int(self._settings.session_gap_s * 1000))
            context = np.array([hash_id(item) for item in request.items], np.uint64)
            recent = history if in_session or not len(context) else history[:0]
            sessions.append(np.concatenate((recent, context))[-SESSION_EVENTS:])
            histories.append(history)
        scored = self._score(sessions, [REPEAT_MODES[request.repeat] for request in requests], now_ms)
        vectors = self._read_vectors(requests)
        return [
            self._build(request, users, i, sessions[i], len(histories[i]) > 0, scored, vectors[i])
            for i, request in enumerate(requests)
        ]

    def _score(self, sessions: list[Ids], modes: list[int], now_ms: int) -> Scored:
        rows, slots = self._items.rows, self._items.slots
        slots.begin_round()
        seeds = np.concatenate(sessions)
        self._items.ensure(self._store, seeds, now_ms, self._settings.item_ttl_ms)
        near = rows.neighbour[slots.find(np.unique(seeds))].ravel()
        self._items.ensure(self._store, near[near != 0], now_ms, SLOW_AGE_MS)
        scored = self._scorer.score(sessions, rows, slots, self._totals, now_ms, modes, self._items.embedding)
        found = np.unique(scored.item[scored.item != 0])
        if (slots.find(found) == ABSENT).any():  # second-order candidates: their own rows decide too
            self._items.ensure(self._store, found, now_ms, SLOW_AGE_MS)
            scored = self._scorer.score(sessions, rows, slots, self._totals, now_ms, modes, self._items.embedding)
        return scored

    def _build(
        self, request: RecommendRequest, users: UserRows, i: int, session: Ids, known: bool, scored: Scored,
        vector: npt.NDArray[np.float32] | None,
    ) -> Answer:  # fmt: skip
        settings = self._settings
        excluded = {hash_id(item) for item in request.exclude}
        n = int(users.n[i])
        kinds = users.kind[i, :n] & KIND_MASK
        excluded |= set(users.item[i, :n][kinds >= FIRST_NEGATIVE_KIND].tolist())
        bought = set(users.item[i, :n][kinds == Kind.PURCHASE].tolist())
        drop_bought = settings.exclude_purchased if request.exclude_purchased is None else request.exclude_purchased
        if drop_bought:
            excluded |= bought
        out = request.exclude_out_of_stock
        allowed = self.catalogue.select(request.filters) if request.filters else None
        chosen = _Chosen(
            self,
            request.count or settings.default_count,
            excluded,
            settings.exclude_out_of_stock if out is None else out,
            allowed,
        )
        latest = list(dict.fromkeys(session.tolist()[::-1]))
        m = int(scored.n[i]) if len(session) else 0
        probabilities, items = scored.probability[i, :m].tolist(), scored.item[i, :m].tolist()
        ranked = list(zip(probabilities, items, range(m), strict=True))
        if len(set(probabilities)) < m:  # ties are broken by item id
            ranked.sort(key=lambda entry: (-entry[0], self._text(entry[1])))
        if request.diversity > 0 and ranked:
            ranked = self._varied(ranked, request, chosen.count + len(excluded))
        for probability, item, k in ranked:
            if chosen.full:
                break
            if not chosen.takes(item):
                continue
            why, seed = int(scored.why[i, k]), int(scored.seed[i, k])
            seed_item = latest[seed] if seed < len(latest) else 0
            chosen.add(item, probability, _source(why), self._reason(why, item, seed_item, bought, request.lang))
        fallback = "personalised" if known else "session" if chosen.found else ""
        if not chosen.full and self.index is not None and vector is not None and vector.any():
            for item, score in self.index.search(vector, 2 * chosen.count, allowed):
                chosen.add(item, score, "vector", reason("matches_taste", request.lang))
        if chosen.found and not fallback:
            fallback = "session"
        self._add_popular(chosen, request.lang)
        if allowed is not None and not chosen.full:
            self._add_allowed(chosen, allowed, request.lang)
        return self._answer(chosen, fallback or ("popular" if chosen.found else "nothing_known"))

    def _varied(
        self, ranked: list[tuple[float, int, int]], request: RecommendRequest, count: int
    ) -> list[tuple[float, int, int]]:
        """Return the candidates in an order that repeats itself less; what is not needed stays behind."""
        slots = self._items.slots.find(np.array([item for _, item, _ in ranked], np.uint64))
        embedding = self._items.embedding
        vectors = embedding[slots] if len(embedding) else np.zeros((len(ranked), 0), np.float32)
        known = [self.catalogue.get(item) for _, item, _ in ranked]
        alike = similarities(vectors, [item.category if item else "" for item in known])
        relevance = np.array([probability for probability, _, _ in ranked]) / ranked[0][0]
        order = METHODS[request.diversity_method](relevance, alike, request.diversity, count)
        first = set(order)
        return [ranked[k] for k in order] + [entry for k, entry in enumerate(ranked) if k not in first]

    def _reason(self, why: int, item: int, seed: int, bought: set[int], lang: str) -> Reason:
        if why == BY_REPEAT:
            return reason("buy_again", lang)
        if why == BY_POPULARITY or not seed:
            return reason(_popular_code(item in self._trending), lang, scope="the whole shop")
        known = self.catalogue.get(seed)
        name = known.item if known else ""
        code = "because_bought" if seed in bought else "because_viewed"
        return reason(code, lang, {"item": self._title(seed, name)}, item=name)

    def _from_memory(self, request: RecommendRequest) -> Answer:
        chosen = _Chosen(
            self, request.count or self._settings.default_count, {hash_id(item) for item in request.exclude}, True
        )
        self._add_popular(chosen, request.lang)
        return self._answer(chosen, "last_known_popular")

    def _add_popular(self, chosen: "_Chosen", lang: str) -> None:
        for item, score, trending in self._last_popular:
            if chosen.full:
                return
            chosen.add(item, score, "popular", reason(_popular_code(trending), lang, scope="the whole shop"))

    def _add_allowed(self, chosen: "_Chosen", allowed: frozenset[int], lang: str) -> None:
        """Fill up from what passes the filters, by what it ever weighed, so that a narrow filter gives full lists."""
        items = sorted(allowed)[:MAX_COUNTED]
        ids = np.array(items, np.uint64)
        self._items.slots.begin_round()
        self._items.ensure(self._store, ids, time.time_ns() // 1_000_000, SLOW_AGE_MS)
        weights = self._items.rows.count[self._items.slots.find(ids)].tolist()
        for weight, item in sorted(zip(weights, items, strict=True), key=lambda pair: (-pair[0], self._text(pair[1]))):
            if chosen.full:
                return
            chosen.add(item, weight / 100, "popular", reason("popular_in", lang, scope="what you asked for"))

    def _answer(self, chosen: "_Chosen", fallback: str) -> Answer:
        return Answer(chosen.found, uuid.uuid4().hex, self.generation, self.anchor, fallback)

    def _scope(self, kind: int, name_hash: int) -> list[tuple[int, float, bool]]:
        """Return (item, score, whether it is trending) of a scope, heaviest at the long half-life first.

        The lanes are merged. An item is trending when its short half-life says that it sells
        TRENDING times what its long one says: at a steady rate a decayed sum grows with its half-life.
        """
        key = lane_rows.scope_hash(kind, name_hash)
        merged: dict[int, tuple[float, float]] = {}
        for value in self._store.read([keys.scope(prefix, key) for prefix in self._prefixes]):
            if kind == lane_rows.COUNTRY:
                scope = lane_rows.country_scope(lane_rows.decode_country(value), self._half_lives)
            else:
                scope = lane_rows.decode_scope(value)
            for item, short, long in zip(scope.item.tolist(), scope.short.tolist(), scope.long.tolist(), strict=True):
                old = merged.get(item, (NO_SCORE, NO_SCORE))
                merged[item] = (float(np.logaddexp2(old[0], short)), float(np.logaddexp2(old[1], long)))
        now_ms, (short_ms, long_ms) = time.time_ns() // 1_000_000 - REFERENCE_MS, self._half_lives
        least = math.log2(TRENDING * short_ms / long_ms) + now_ms / short_ms - now_ms / long_ms
        found = [(item, long, short - long > least) for item, (short, long) in merged.items()]
        return sorted(found, key=lambda entry: (-entry[1], self._text(entry[0])))

    def _read_users(self, requests: Sequence[RecommendRequest]) -> UserRows:
        rows = empty_users(len(requests))
        subjects = [_subject(request) for request in requests]
        asked = [i for i, subject in enumerate(subjects) if subject]
        wanted = [keys.user(self._prefixes[subjects[i] % len(self._prefixes)], subjects[i]) for i in asked]
        decode_users(self._store.read(wanted), np.array(asked, np.int64), rows)
        return rows

    def _read_vectors(self, requests: Sequence[RecommendRequest]) -> list[npt.NDArray[np.float32] | None]:
        found: list[npt.NDArray[np.float32] | None] = [None] * len(requests)
        if self.index is not None:
            subjects = [_subject(request) for request in requests]
            asked = [i for i, subject in enumerate(subjects) if subject]
            wanted = [
                keys.vector(self._prefixes[subjects[i] % len(self._prefixes)], self.index.version, subjects[i])
                for i in asked
            ]
            for i, value in zip(asked, self._store.read(wanted), strict=True):
                found[i] = decode_vector(value) if value else None
        return found

    def _text(self, item_hash: int) -> str:
        known = self.catalogue.get(item_hash)
        return known.item if known else ""

    def _title(self, item_hash: int, item: str) -> str:
        known = self.catalogue.get(item_hash)
        return known.title if known else item


class _Chosen:
    """An answer being filled: nothing twice, nothing excluded, nothing that is gone."""

    def __init__(
        self, recommender: Recommender, count: int, excluded: set[int], drop_out_of_stock: bool,
        allowed: frozenset[int] | None = None,
    ) -> None:  # fmt: skip
        self._catalogue, self.count, self._allowed = recommender.catalogue, count, allowed
        self._excluded, self._drop_out_of_stock = set(excluded), drop_out_of_stock
        self.found: list[Recommendation] = []

    @property
    def full(self) -> bool:
        return len(self.found) >= self.count

    def takes(self, item_hash: int) -> bool:
        """Say whether the item may be in the answer."""
        if item_hash in self._excluded or (self._allowed is not None and item_hash not in self._allowed):
            return False
        item = self._catalogue.get(item_hash)
        return item is not None and self._shown(item)

    def add(self, item_hash: int, score: float, source: str, why: Reason) -> None:
        if self.full or not self.takes(item_hash):
            return
        item = self._catalogue.get(item_hash)
        assert item is not None
        self._excluded.add(item_hash)
        self.found.append(Recommendation(item.item, item.title, score, source, why))

    def _shown(self, item: Item) -> bool:
        return not item.gone and not (self._drop_out_of_stock and item.stock is not None and item.stock <= 0)


def sum_totals(values: Sequence[bytes | None]) -> npt.NDArray[np.int64]:
    """Return the globals of all lanes as one vector: counts add up, popularity at the newest epoch."""
    parts = [lane_rows.decode_globals(value) for value in values]
    total: npt.NDArray[np.int64] = np.sum(parts, axis=0)
    for at in (lane_rows.POP, lane_rows.POP + 3):
        newest = max(int(part[at]) for part in parts)
        total[at] = newest
        total[at + 1] = sum(int(part[at + 1]) for part in parts if part[at] == newest)
        total[at + 2] = sum(int(part[at + 2]) for part in parts if part[at] == newest) + sum(
            int(part[at + 1]) for part in parts if part[at] == newest - 1
        )
    return total


def _popular_code(trending: bool) -> str:
    return "trending_in" if trending else "popular_in"


def _subject(request: RecommendRequest) -> int:
    if request.user:
        return hash_id(request.user)
    return hash_id("session:" + request.session) if request.session else 0


def _source(why: int) -> str:
    if why == BY_REPEAT:
        return "repeat"
    if why == BY_POPULARITY:
        return "popular"
    return "next_item" if why == ADJ else "cooccurrence"


def _session_of(users: UserRows, i: int, now_ms: int, gap_ms: int) -> tuple[Ids, bool]:
    """Return (items that stand for the user, whether they are a session that still runs).

    They are the running session's items; when it is over, the latest of the history.
    """
    n = int(users.n[i])
    positive = users.kind[i, :n] & KIND_MASK < FIRST_NEGATIVE_KIND
    first = n
    if n and now_ms - int(users.last_ms[i]) <= gap_ms:
        first = n - 1
        while first > 0 and users.gap_ms[i, first] <= gap_ms:
            first -= 1
    running = first < n
    start = first if running else max(0, n - SESSION_EVENTS)
    return users.item[i, start:n][positive[start:]], running
