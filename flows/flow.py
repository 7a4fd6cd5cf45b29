"""A flow: the lanes of one process, the log they fold, and recovery from what passes (`flows.run` is the program)."""

import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import structlog

from flows import metrics
from flows.anchor_follower import AnchorFollower
from flows.books import open_books
from flows.connect import connect, open_store
from flows.erased_elsewhere import ErasedElsewhere
from flows.fold.erased_users import EMPTY
from flows.fold.lane import Lane
from flows.health import Health
from flows.leases import Leases, PlacedLeases
from flows.log.batch_sizer import BatchSizer
from flows.log.contract import Log, LogUnavailable, PositionLost, RawBatch, TopicReplaced, topic_of
from flows.log.dead_letters import DeadLetters
from flows.log.open_log import open_log
from flows.log.open_registry import open_registry
from flows.read_erased_users import read_erased
from flows.runner import Block, Intake, Runner, resume_positions
from flows.runtime_tuning import prepare_interpreter
from flows.settings import FlowSettings, lane_settings, limits_of
from flows.warm_up import warm_up
from schemas.registry import RegistryUnavailable
from state.anchors.fetcher import AnchorFetcher
from state.anchors.open_anchors import open_anchors
from state.eviction import refuse_eviction
from state.generations import Generation, live_generation, new_generation, read_generation, write_generation
from state.rows import keys
from state.store.contract import Fenced, Positions, StoreUnavailable, decode_positions

ANCHOR_LOOK_S = 0.2
POLL_S = 0.1
REPORT_S = 5.0
TURN_S = 0.02
BACK_OFF_S = 0.5

OUT_OF_REACH = (Fenced, StoreUnavailable, LogUnavailable, RegistryUnavailable)
"""What passes while a flow is at work: call `Flow.recover`."""

log = structlog.get_logger()


class Flow:
    """Everything a driver needs: the log, the runner with the lanes it has, the anchors, and the stop flag.

    Without a `generation` it folds the live one, and follows the pointer when that moves. With a `share` (part,
    number of parts) it folds the lanes that an engine has placed here, else those that its leases give it.
    """

    def __init__(
        self, settings: FlowSettings, generation: Generation | None = None, health: Health | None = None,
        share: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        prepare_interpreter()
        self._share = share
        self.health = health or Health()
        self._base = self.settings = settings
        self._fixed = generation
        self.stopping = threading.Event()
        self._anchors = AnchorFetcher(open_anchors(settings))
        self.store = open_store(settings, patient=True)
        refuse_eviction(self.store, settings)
        address, config = settings.log_address, settings.kafka_config
        self.log: Log = connect("the log", settings.connect_timeout_s, lambda: open_log(address, config=config))
        connect("the log", settings.connect_timeout_s, self.log.start)
        self._letters_log = open_log(address, config=config)
        self._registry = open_registry(settings)
        self._elsewhere = ErasedElsewhere(self.store, settings)
        self._books = open_books(settings, self.store, self._registry)
        self.runner = Runner(
            [],
            self.store,
            Intake(self._registry, limits_of(settings), DeadLetters(self._letters_log), settings.max_bad_in_a_row),
            before_erasing=self._erase_elsewhere,
        )
        most = min(settings.batch_max_events, settings.max_cached_users // 4, settings.max_cached_items // 4)
        # Half a lease: others take the lanes of a flow that has not been seen for a whole one.
        self._size = BatchSizer(most, settings.lease_s / 2)
        self._name = settings.flow_name or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._follower: AnchorFollower | None = None
        self._leases: Leases | None = None
        self.erased = EMPTY
        self._looked_at = self._leased_at = self._reported_at = 0.0
        self.lanes_here: Callable[[], Sequence[Lane]] = lambda: self.runner.lanes
        """Returns the lanes of this process, of other flows too: one report is made of all."""
        self._start: Positions = {}
        """Where the generation begins to read."""
        self._positions: Positions = {}
        self._n_batches = self._n_opened = 0
        self._is_open = False
        """Whether the last `open` came to its end: what it left half done is nothing to go on from."""

    @property
    def generation(self) -> str:
        """Name of the generation that is folded."""
        return self.settings.generation

    def open(self) -> None:
        """(Re)load what this process has to fold from the store, and read on from there."""
        self._is_open = False
        self.runner.abandon()
        self._n_opened += 1
        self._restore_books()
        generation = self._of_these_topics(self._fixed or self._live_generation())
        settings = generation.settings(self._base)
        if self._leases is None or generation.name != self.generation:
            now_ms, patience_s = time.time_ns() // 1_000_000, self._base.connect_timeout_s
            self.erased = read_erased(self.log, self._registry, generation.erasures, now_ms, patience_s)
            if self._leases is not None:
                self._leases.deregister()
            self.settings = settings
            self._leases = self._leases_of(generation.name)
        keep, give = self._leases.look()
        self._leases.release(give)
        self._leased_at = time.monotonic()
        self.runner.lanes = [
            Lane(lane_settings(self.settings), self.store, generation.name, lane, self.erased) for lane in sorted(keep)
        ]
        self._start = generation.start
        self._positions = {**self._start, **self.runner.open()}
        self._follower = AnchorFollower(
            self.store, self.runner.lanes, generation.name, self.settings.n_lanes, self._anchors,
            self.runner.commit_now, may_switch=self._fixed is None,
        )  # fmt: skip
        self._follower.open()
        self._is_open = True
        self._is_well()
        log.info("lanes", generation=generation.name, lanes=sorted(keep), of=self.settings.n_lanes)

    def _leases_of(self, generation: str) -> Leases:
        common = (self.store, generation, self.settings.n_lanes, self._name, self.settings.lease_s)
        return Leases(*common) if self._share is None else PlacedLeases(*common, self._share)

    def _restore_books(self) -> None:
        """Make Redis hold the books of rules, which it may have lost; lists without them are better than no rows."""
        if self._fixed is not None or (self._share is not None and self._share[0]):  # one part of an engine does it
            return
        try:
            self._books.catch_up()
        except (LogUnavailable, RegistryUnavailable, PositionLost) as error:
            log.warning("the books of rules cannot be read from the log", error=str(error))

    def _is_well(self) -> None:
        """Note in `health` that the lanes there are, if any, are folded from now on."""
        health, lanes = self.health, sorted(lane.lane for lane in self.runner.lanes)
        health.generation, health.lanes, health.reason = self.generation, lanes, ""
        health.turned_s, health.state = time.monotonic(), "folding" if lanes else "standby"

    def _erase_elsewhere(self, users: Collection[int]) -> None:
        if self._fixed is None:  # a replay folds erasures that are long done
            self._elsewhere.erase(users, self.generation)

    def _live_generation(self) -> Generation:
        """Return the live generation; the first flow of all makes it."""
        name = live_generation(self.store) or self._base.generation
        found = read_generation(self.store, name)
        if found is None:
            found = new_generation(name, self._base, time.time_ns() // 1_000_000)
            write_generation(self.store, found)
            self.store.write({keys.GENERATION: name.encode()})
        other = [key for key, value in found.fold.items() if value != getattr(self._base, key)]
        if other:
            log.warning("the generation keeps the settings it was made with; `headrace replay` makes one with others",
                        generation=name, differing=other)  # fmt: skip
        return found

    def _of_these_topics(self, generation: Generation) -> Generation:
        """Return the record, which now holds the ids of all topics.

        Raises TopicReplaced where some of it was folded from another topic of the same name.
        """
        ids = self.log.topic_ids()
        others = {topic: known for topic, known in ids.items() if generation.topics.get(topic) != known}
        if not others:
            return generation
        values = self.store.read([keys.positions(prefix) for prefix in generation.prefixes])
        folded = [generation.start, *(decode_positions(value) for value in values)]
        read = {topic_of(stream) for positions in folded for stream, at in positions.items() if at > 0}
        for topic in others:
            if topic in generation.topics and topic in read:
                raise TopicReplaced(topic, f"it was deleted and made again since generation {generation.name} read it")
        found = generation.model_copy(update={"topics": {**generation.topics, **others}})
        write_generation(self.store, found)
        if self._fixed is not None:
            self._fixed = found
        return found

    def _look_for_changes(self) -> bool:
        """Renew the leases; return whether lanes or the live generation have changed, so that `open` is due.

        Where there is no live generation any more, Redis has lost its data: `open` makes the generation anew. Where an
        idle lane's positions are others, it has lost its last second, or another owner has written.
        """
        now = time.monotonic()
        if self._leases is None or now - self._leased_at < self.settings.lease_s / 4:
            return False
        self._leased_at = now
        held = set(self._leases.owned)
        if {lane.lane for lane in self.runner.lanes} != held:
            return True
        keep, give = self._leases.look()
        if keep != held or give:
            return True
        if self._fixed is None and live_generation(self.store) != self.generation:
            return True
        return self.runner.is_idle and not self._are_committed()

    def begin(self) -> None:
        """Open for the first time; another owner may be at work on the lanes."""
        warm_up()
        try:
            self.open()
        except OUT_OF_REACH as error:
            self.recover(error)

    def handle(self, raw: RawBatch | None) -> None:
        """Fold a batch (None: there was nothing to read), see to leases and pointers, do one piece of anchor work.

        Raises one of OUT_OF_REACH when a commit failed, say: call `recover`.
        """
        block = self.decode(raw)
        if block is None:
            self.runner.drain()
        else:
            self.runner.write_letters(block)
            self.fold(block)
            self.observe(block)
            self.commit(block)
        self.report()
        self.look_after(block is not None and block.behind)

    def decode(self, raw: RawBatch | None) -> Block | None:
        """Return a batch as columns; None where there is none, or where it was read before lanes were loaded anew."""
        if raw is None or not self.runner.lanes or raw.opening != self._n_opened:
            return None
        self._n_batches += 1
        # What is logged about a batch names it; its messages are found again by their offsets.
        structlog.contextvars.bind_contextvars(flow=self._name, generation=self.generation, batch=self._n_batches)
        return self.runner.decode(raw, raw.full)

    def is_current(self, block: Block) -> bool:
        """Return whether no lanes were loaded anew since a block was read."""
        return block.raw.opening == self._n_opened

    def fold(self, block: Block) -> None:
        """Fold a block into the lanes, after whatever of the log they have missed before it."""
        self._heal(block.raw.before)
        self.runner.apply(block)

    def observe(self, block: Block) -> None:
        """Count a folded block in the metrics."""
        assert block.report is not None
        metrics.observe(block.report)

    def commit(self, block: Block) -> None:
        """Hand a folded block's rows to the commit thread."""
        self.runner.commit(block)
        assert block.report is not None
        self._size.observe(block.raw, sum(block.report.seconds.values()) - block.report.seconds["commit"])

    def look_after(self, behind: bool) -> None:
        """See to all that is due between batches: vectors owed, leases and pointers, an anchor's refold.

        Raises one of OUT_OF_REACH: call `recover`.
        """
        if self.runner.owes_vectors and not behind:
            self.runner.write_pending()
        if self._look_for_changes():
            self.runner.drain()
            self.open()
        now = self.health.turned_s = time.monotonic()
        if self._follower is not None and (self._follower.busy or now - self._looked_at > ANCHOR_LOOK_S):
            self._looked_at = now
            self.runner.drain()
            self._follower.step(time.time_ns() // 1_000_000)
            metrics.REFOLDED.set(self._follower.n_refolded)

    @property
    def is_due(self) -> bool:
        """Whether `look_after` has work, so that an engine without a batch gives it a turn."""
        busy = self.runner.owes_vectors or (self._follower is not None and self._follower.busy)
        return busy or self.runner.has_committed or time.monotonic() - self.health.turned_s > TURN_S

    def _heal(self, before: Positions) -> None:
        """Fold what lies between the lanes' positions and `before`, which an engine has passed over."""
        at = {**self._start, **resume_positions(self.runner.lanes)}
        while any(self._has_gap(lane, before) for lane in self.runner.lanes):
            raw = self._size.read(self.log, at, POLL_S)
            if raw is None:
                raise LogUnavailable("the log does not give what lies before a batch")
            at = raw.after
            metrics.observe(self.runner.fold(raw.until(before), behind=True))

    def _has_gap(self, lane: Lane, before: Positions) -> bool:
        """Return whether a batch that begins at `before` begins past what the lane has folded."""
        at = lane.positions
        if all(offset <= at.get(stream, self._start.get(stream, 0)) for stream, offset in before.items()):
            return False
        first = self.log.start()  # the log holds no more of a stream that the lane has not begun
        return any(
            offset > at.get(stream, self._start.get(stream, first.get(stream, 0))) for stream, offset in before.items()
        )

    def report(self) -> None:
        """Every few seconds: show the lag, and where we are to the log's own tools. Raises OUT_OF_REACH."""
        now = time.monotonic()
        if now - self._reported_at < REPORT_S or not self.runner.lanes:
            return
        self._reported_at = now
        lanes = self.lanes_here()
        committed = resume_positions(lanes)
        newest_ms = max(lane.newest_ms for lane in lanes)
        lag = metrics.observe_lag(self.log.end(), committed, newest_ms, time.time_ns() // 1_000_000)
        self.health.lag, self.health.committed_s = lag, self.runner.committed_s
        self.log.report(committed)

    def recover(self, error: Exception) -> None:
        """After one of OUT_OF_REACH: wait if need be, and reload."""
        while not self.stopping.is_set():
            self.health.state, self.health.reason = "away", str(error)
            if isinstance(error, Fenced):
                metrics.FENCES.inc()
                self.health.fences += 1
                log.warning("fenced: another owner wrote the lane; reloading", error=str(error))
            else:
                metrics.STORE_ERRORS.inc()
                log.warning("out of reach; trying again", error=str(error))
                self.stopping.wait(BACK_OFF_S)
            try:
                if isinstance(error, Fenced | StoreUnavailable) or not self._goes_on():
                    self.open()
                self._is_well()
                return
            except OUT_OF_REACH as again:
                error = again

    def _goes_on(self) -> bool:
        """Continue where the lanes are, if their positions are the committed ones: then only the log was away."""
        if not self._is_open:
            return False
        self.runner.drain()
        if not self._are_committed():
            return False
        self._n_opened += 1  # what an engine has read ahead is read again
        self._positions = {**self._start, **resume_positions(self.runner.lanes)}
        return True

    def _are_committed(self) -> bool:
        """Return whether the lanes are those of the store; all commits must be done."""
        lanes = self.runner.lanes
        stored = self.store.read([keys.positions(lane.prefix) for lane in lanes])
        return all(decode_positions(at) == lane.positions for at, lane in zip(stored, lanes, strict=True))

    def poll(self, wait_s: float = POLL_S) -> RawBatch | None:
        """Return the next batch and stand behind it; None when there is nothing to read for `wait_s`."""
        if not self.runner.lanes:  # a standby
            self.stopping.wait(wait_s)
            return None
        working = self.runner.owes_vectors or (self._follower is not None and self._follower.busy)
        wait = 0.0 if working else wait_s
        raw = self._size.read(self.log, self._positions, wait)
        if raw is None:
            return None
        self._positions = raw.after
        return replace(raw, opening=self._n_opened)

    def close(self) -> None:
        """Finish the commit under way and let go of everything."""
        try:
            self.runner.close()
            if self._leases is not None:
                self._leases.deregister()
        except (Fenced, StoreUnavailable) as error:
            log.warning("the last batch was not committed; it is folded again at the next start", error=str(error))
        self.log.close()
        self._letters_log.close()
        self.store.close()
