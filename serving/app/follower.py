"""What keeps a server's recommender up to date: rows, products, rules, anchors, generations and the copy on disk."""

import asyncio
import contextlib
import time

import structlog

from flows.books import Books
from flows.log.contract import LogUnavailable, PositionLost
from schemas.registry import RegistryUnavailable
from serving.auth.api_keys import Guard
from serving.engine.clock import now_ms
from serving.engine.guarded_store import GuardedStore
from serving.engine.metrics import BOOK_MISSING
from serving.engine.offline_copy import OfflineSnapshot
from serving.engine.recommender import Recommender
from serving.retrieval.vector_index import VectorIndex
from serving.rules.book_errors import BadBook
from serving.rules.book_store import live_version, read_book
from serving.settings import ServingSettings
from serving.snapshot.snapshot import ServingSnapshot
from state.anchor import AnchorDamaged, anchor_versions
from state.anchors.fetcher import AnchorFetcher
from state.anchors.open_anchors import open_anchors
from state.generations import live_generation, read_generation
from state.rows import keys
from state.settings import BadSettings
from state.store.contract import Store, StoreUnavailable

FOLLOW_S = 0.2
FIRST_ANCHOR_S = 10.0
"""How long a server that starts waits for the anchor to arrive, before it answers without."""
SAVE_S = 10.0
"""How often the copy for answers without Redis is written."""
RESTORE_S = 5.0
"""How often the log is looked at for books that Redis has lost."""
CHANGES_AT_ONCE, ROWS_AT_ONCE, TIMES = 200, 50, 10
"""What a look does between two turns of the loop, and how often at most: take over changed products, which takes one to
five milliseconds; read rows ahead, of new items and such as were written, in some half a millisecond."""

log = structlog.get_logger()


class Follower:
    """Keeps the recommender's catalogue, totals and anchor up to date."""

    def __init__(self, recommender: Recommender, settings: ServingSettings, guard: Guard, books: Books) -> None:
        self._recommender, self._settings, self._store = recommender, settings, recommender.store
        self._anchors = AnchorFetcher(open_anchors(settings))
        self._refused: str | None = None
        self._refused_generation: str | None = None
        self._books = books
        self._seen_book: int | None = None
        """Version of the live book when the store was last looked at; None: it was not."""
        self._restored_at = 0.0
        self._offline = OfflineSnapshot(settings.offline_dir)
        self._saved_at = 0.0
        self._saving: asyncio.Task[None] | None = None
        self._guard = guard
        self._said_away = False
        self.ready = False

    async def run(self) -> None:
        """Follow for ever; whatever fails is logged and tried again. Requests are answered between its steps."""
        while True:
            pause_s = FOLLOW_S
            try:
                self._guard.follow()  # first: a key that was removed is refused, whatever is out of reach
                await self.look()
                self._said_away = False
                if self._recommender.shop.catalogue.behind:
                    pause_s = 0.0
            except StoreUnavailable as error:
                if not self._said_away:
                    log.warning("the store is out of reach; answering from memory", error=str(error))
                self._said_away = True
            except Exception as error:  # a server that no longer follows would answer from the past for ever
                log.error("following failed; trying again", exc_info=error)
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """Take over what is new; a generation or an anchor is loaded aside and swapped in at once.

        Before anything is read in the loop Redis is known to answer. Raises StoreUnavailable.
        """
        await self._store.ready()
        generation = live_generation(self._store)
        if generation is not None and generation not in (self._recommender.generation, self._refused_generation):
            try:
                await self._enter(generation)
            except BadSettings as error:
                self._refused_generation = generation
                log.error("the generation cannot be served; the one before stays", error=str(error))
        elif generation is not None and not self.ready and (record := read_generation(self._store, generation)):
            record.settings(self._settings)  # Redis was away when this server began to serve it
        shop = self._recommender.shop
        await asyncio.to_thread(shop.subscribe)
        await self._pause()
        # A shop may send all of its products at once: as they are taken over requests are answered.
        shop.refresh(now_ms(), CHANGES_AT_ONCE if self.ready else None)
        for _ in range(TIMES):
            if not shop.catalogue.behind:
                break
            await self._pause()
            shop.apply_changes(CHANGES_AT_ONCE)
        for _ in range(TIMES):
            await self._pause()
            if not shop.scan_more(ROWS_AT_ONCE, now_ms()):
                break
        await self._pause()
        await self._take_book()
        value = self._store.read([keys.ANCHOR_LIVE])[0]
        live = value.decode() if value else None
        if live and live not in (self._recommender.anchor, self._refused):
            await self._take_anchor(live)
        self.ready = True
        if time.monotonic() - self._saved_at > SAVE_S and (self._saving is None or self._saving.done()):
            self._saved_at = time.monotonic()
            self._saving = asyncio.create_task(self._save())

    async def _take_anchor(self, live: str) -> None:
        """Serve with the live anchor if it is here; else it is being fetched, and at the start a copy has to do."""
        index = None
        try:
            index = await asyncio.to_thread(self._anchors.load, live, VectorIndex.load)
            until = time.monotonic() + FIRST_ANCHOR_S
            while index is None and not self.ready and not self._anchors.failed(live) and time.monotonic() < until:
                await asyncio.sleep(FOLLOW_S)
                index = await asyncio.to_thread(self._anchors.load, live, VectorIndex.load)
        except (AnchorDamaged, OSError, RuntimeError) as error:
            self._refused = live
            log.error("anchor cannot be loaded; the one before stays", anchor=live, error=str(error))
        if index is None and not self.ready and self._recommender.anchor is None:
            index = await asyncio.to_thread(self._newest_copy)
        if index is not None:
            self._recommender.set_index(index)
            log.info("anchor taken over", anchor=index.version)
        elif not self.ready and self._recommender.anchor is None:
            log.warning("answering without an anchor until it can be loaded", anchor=live)
        if self._recommender.anchor == live:
            await asyncio.to_thread(self._anchors.keep, live)

    def _newest_copy(self) -> VectorIndex | None:
        """Return the newest anchor on this machine that can be loaded."""
        folder, versions = self._anchors.anchors.folder, list[str]()
        with contextlib.suppress(OSError):
            versions = anchor_versions(folder)
        for version in reversed(versions):
            with contextlib.suppress(AnchorDamaged, OSError, RuntimeError):
                return VectorIndex.load(folder / version)
        return None

    async def _pause(self) -> None:
        """Let requests be answered, between two things to follow. Raises StoreUnavailable."""
        await asyncio.sleep(0)
        await self._store.ready()

    async def saved(self) -> None:
        """Wait for the copy that is being written."""
        if self._saving is not None:
            await self._saving

    async def _save(self) -> None:
        """Write the copy on disk, which takes its time with a large catalogue."""
        try:
            await asyncio.to_thread(self._offline.save, self._recommender.shop)
        except OSError as error:
            log.warning("the copy for answers without Redis was not written", error=str(error))
        except Exception as error:  # nobody else hears of it, and the next turn tries again
            log.error("the copy for answers without Redis was not written", exc_info=error)

    async def _take_book(self) -> None:
        """Use the live book. A store without one, where there was one, has lost its data: then the last one stays."""
        used = self._recommender.shop.rules.version
        version = live_version(self._store)
        lost = version == 0 and used > 0
        if self._seen_book is None or (lost and time.monotonic() - self._restored_at > RESTORE_S):
            await self._restore_books()
            version = live_version(self._store)
            lost = version == 0 and used > 0
        self._note_missing(lost, used)
        if version in (0, self._seen_book):
            self._seen_book = version
            return
        self._seen_book = version
        try:
            self._recommender.shop.rules = read_book(self._store, version)
            log.info("rules taken over", version=version)
        except BadBook as error:
            log.error("the book of rules cannot be read; the one before stays", version=version, error=str(error))

    async def _restore_books(self) -> None:
        """Have the log's books put into the store. Raises StoreUnavailable."""
        self._restored_at = time.monotonic()
        try:
            await asyncio.to_thread(self._books.catch_up)
        except (LogUnavailable, RegistryUnavailable, PositionLost, StoreUnavailable) as error:
            log.warning("the books of rules in the log were not compared with those in Redis", error=str(error))
        await self._pause()

    def _note_missing(self, missing: bool, used: int) -> None:
        """Log it once when the book goes missing, and show it."""
        if missing and not self._recommender.book_missing:
            log.error(
                "neither Redis nor the log has a book of rules any more; the last one goes on; put it again "
                "(docs/runbook.md)", version=used,
            )  # fmt: skip
        self._recommender.book_missing = missing
        BOOK_MISSING.set(missing)

    async def _enter(self, generation: str) -> None:
        """Load a generation aside, with the anchor and the rules in use, and answer from it. Raises BadSettings."""
        live = self._recommender.shop
        fresh = await asyncio.to_thread(open_snapshot, self._store, self._settings, generation)
        await asyncio.to_thread(fresh.subscribe)
        await asyncio.to_thread(fresh.refresh, now_ms())
        if live.index is not None:
            fresh.set_index(live.index)
        await asyncio.to_thread(fresh.prefetch, now_ms())
        fresh.rules = live.rules
        self._recommender.replace_snapshot(fresh)
        log.info("generation taken over", generation=generation)


def open_snapshot(store: GuardedStore, settings: ServingSettings, generation: str) -> ServingSnapshot:
    """Return an empty snapshot of a generation, with the settings its rows were folded with. Raises BadSettings."""
    record = read_generation(store, generation)
    return ServingSnapshot(store, record.settings(settings) if record else settings, generation)


def open_recommender(store: Store | GuardedStore, settings: ServingSettings, generation: str) -> Recommender:
    """Return a recommender on a generation's rows, with the settings they were folded with."""
    guarded = store if isinstance(store, GuardedStore) else GuardedStore(store)
    return Recommender(guarded, settings, generation, open_snapshot(guarded, settings, generation))
