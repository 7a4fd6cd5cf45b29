"""Scores batches of sessions: features, then the mixture, then the order of its probabilities or of trees."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled.njit import njit, njit_no_refcount
from serving.scoring.candidate_table import MAX_CANDIDATES
from serving.scoring.expansion_cache import ExpansionCache, new_expansion_cache
from serving.scoring.features import FeatureSource, new_features, new_scratch, shop_totals, write_features
from serving.scoring.item_features import ItemTable
from serving.scoring.mixture import ALLOW, DEMOTE, EXCLUDE, new_terms, score
from serving.scoring.neighbours import Candidates
from serving.scoring.origins import write_origins
from serving.scoring.parameters import DEFAULT, DEFAULT_CONFIG, MixtureParams, ScoreConfig
from serving.scoring.sessions import Sessions, padded_sessions
from serving.scoring.tree_ensemble import NO_FOREST, Forest, put_in_order
from serving.scoring.tree_features import N_PAIRS
from state.rows.item_rows import ItemRows, empty_items
from state.rows.lane_rows import SIZE
from state.rows.session import MAX_DISTINCT
from state.rows.slot_map import ABSENT, SlotMap

REPEAT_MODES = {"allow": ALLOW, "demote": DEMOTE, "exclude": EXCLUDE, "new_first": EXCLUDE}
"""By what a request may say of repeats; `new_first` shows the session's items behind those of all sources."""
PLACE_BITS = MAX_CANDIDATES - 1
NO_EMBEDDING = np.zeros((0, 0), np.float32)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]


class Scored(NamedTuple):
    """Per request, best first: ids, probabilities, and reasons (the seed's id or 0, the kind of its share)."""

    n: Int64s  # (B,)
    item: Uint64s  # (B, M)
    probability: Floats  # (B, M)
    seed: Uint64s  # (B, M)
    reason: Int64s  # (B, M): `serving.scoring.origins`
    tied: npt.NDArray[np.bool_]  # (B,) whether some are equally likely
    unread: npt.NDArray[np.bool_]  # (B,) whether some have no row in the table; those of the others are kept


class Model(NamedTuple):
    """The fitted parameters, and the settings of scoring."""

    params: MixtureParams
    config: ScoreConfig
    forest: Forest


class RowUse(NamedTuple):
    """Marks the rows of what is returned as used in this round."""

    used_in: Int64s
    round_no: int


class Workspace(NamedTuple):
    """Arrays for the candidates of one session."""

    seeds: Uint64s
    reason: Int64s
    keys: Int64s
    likeliest: Int64s
    trees_order: Int64s
    pairs: Floats32  # for trees


@njit_no_refcount()
def likeliest_first(probability: Floats, items: Uint64s, keys: Int64s, order: Int64s) -> None:
    """Write the order of falling probability, equal ones by id hash; `keys` is room for as many."""
    # Numbers of 64 bits compare faster than places do: those of doubles >= 0 rise with them, and the lowest bits of
    # each give way to its place. For each it is counted how many are smaller, four at a time.
    bits, n = probability.view(np.int64), len(probability)
    for i in range(n):
        keys[i] = ~(bits[i] | PLACE_BITS) | i
    for i in range(n):
        smaller = 0
        for k in range(n):
            smaller += keys[k] < keys[i]
        order[smaller] = i
    for k in range(n):  # few are out of place: those equal to another, or all but equal
        i, at = order[k], k
        while at > 0:
            before = order[at - 1]
            if probability[before] > probability[i] or (
                probability[before] == probability[i] and items[before] < items[i]
            ):
                break
            order[at] = before
            at -= 1
        order[at] = i


@njit()
def _new_workspace(width: int) -> Workspace:
    return Workspace(
        np.empty(width, np.uint64), np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.int64),
        np.empty(width, np.int64), np.empty((width, N_PAIRS), np.float32),
    )  # fmt: skip


@njit(nogil=True)
def _score_batch(
    sessions: Sessions, modes: Int64s, items: ItemTable, totals: Int64s, now_ms: int, expansion: ExpansionCache,
    model: Model, use: RowUse, out: Scored,
) -> None:  # fmt: skip
    p, c, forest = model.params, model.config, model.forest
    width = c.n_candidates + MAX_DISTINCT + 1
    source = FeatureSource(items, shop_totals(totals, c, now_ms), expansion, c.n_candidates)
    scratch, features = new_scratch(c.n_candidates, items.embedding.shape[1]), new_features(width)
    terms, work = new_terms(width), _new_workspace(width)
    for b in range(len(sessions.n)):
        # Trees take the session's items for candidates: where they are not to be shown they are left out at the end.
        by_trees = len(forest.value) > 0 and modes[b] != DEMOTE
        n, m = write_features(sessions.item[b], sessions.n[b], source, scratch, features)
        score(features, n, m, p, ALLOW if by_trees else modes[b], terms)
        write_origins(features, terms, n, m, p, scratch.session.item, work.seeds, work.reason)
        likeliest_first(terms.probability[:n], scratch.candidates.item, work.keys, work.likeliest)
        order, n_ordered = work.likeliest, 0
        if by_trees:
            order = work.trees_order
            order[:n] = work.likeliest[:n]
            n_ordered = put_in_order(order[:n], features, terms.probability, m, work.pairs, forest)
        skipped = m if by_trees and modes[b] == EXCLUDE else 0
        _write_answer(b, n, skipped, n_ordered, order, terms.probability, scratch.candidates, work, use, out)


@njit_no_refcount()
def _write_answer(
    b: int, n: int, skipped: int, n_ordered: int, order: Int64s, probability: Floats, candidates: Candidates,
    work: Workspace, use: RowUse, out: Scored,
) -> None:  # fmt: skip
    """Write session b's candidates in `order`, without the first `skipped`; the k-th gets the k-th largest P."""
    scale = 1.0 / np.sum(probability[skipped:n]) if skipped > 0 and skipped < n else 1.0
    k = q = 0
    for i in order[:n]:
        if i < skipped:
            continue
        while work.likeliest[q] < skipped:
            q += 1
        share = probability[work.likeliest[q]] * scale  # trees say who comes first, the mixture how likely a place is
        if k == out.item.shape[1] or share <= 0.0:
            break
        out.item[b, k], out.probability[b, k] = candidates.item[i], share
        out.seed[b, k], out.reason[b, k] = work.seeds[i], work.reason[i]
        slot = candidates.slot[i]
        if slot == ABSENT:
            out.unread[b] = True
        else:
            use.used_in[slot] = use.round_no
        out.tied[b] |= k > n_ordered and out.probability[b, k - 1] == share
        k, q = k + 1, q + 1
    out.n[b] = k


class Scorer:
    """Scores batches of sessions against a table of item rows. Not for several threads at once."""

    def __init__(
        self,
        params: MixtureParams = DEFAULT,
        config: ScoreConfig = DEFAULT_CONFIG,
        forest: Forest = NO_FOREST,
        max_age_ms: int = 0,
    ) -> None:
        """`max_age_ms`: how long what follows from the rows of an item's neighbours is good for; 0: for one call."""
        self.params, self.config, self.forest = params, config, forest
        self._max_age_ms = max_age_ms
        self._expansion, self._n_calls = new_expansion_cache(0), 0

    def score(
        self,
        sessions: Sessions,
        rows: ItemRows,
        slots: SlotMap,
        totals: Int64s,
        now_ms: int,
        modes: Int64s | int = ALLOW,
        embedding: Floats32 = NO_EMBEDDING,
        by_trees: bool = True,
        read_in: Int64s | None = None,
    ) -> Scored:
        """Return the candidates of each session, likeliest first; equal ones by id hash.

        Every item of a session should have its row in the table; one without counts as unseen. `modes`: of
        REPEAT_MODES, one for each session or one for all. Where there are trees, and `by_trees`, the likeliest are in
        their order. `read_in`: a number for each row, another one whenever the row changes; without it they change
        with `now_ms` at most. In `slots` the rows of what is returned are marked as used in this round.
        """
        b, width = len(sessions.n), self.config.n_candidates + MAX_DISTINCT
        out = Scored(
            np.zeros(b, np.int64),
            np.zeros((b, width), np.uint64),
            np.zeros((b, width)),
            np.zeros((b, width), np.uint64),
            np.zeros((b, width), np.int64),
            np.zeros(b, np.bool_),
            np.zeros(b, np.bool_),
        )
        if len(self._expansion.rows) != len(rows):
            self._expansion = new_expansion_cache(len(rows))
        self._n_calls += 1
        now, oldest = (now_ms, now_ms - self._max_age_ms) if self._max_age_ms else (self._n_calls, self._n_calls)
        second = self._expansion.second._replace(now=now, oldest=oldest)
        expansion = self._expansion._replace(
            second=second, read_in=self._expansion.read_in if read_in is None else read_in
        )  # fmt: skip
        mode_of = np.full(b, modes, np.int64)  # one for all, or one for each
        model = Model(self.params, self.config, self.forest if by_trees else NO_FOREST)
        items = ItemTable(rows, slots.table, slots.slot_at, embedding)
        use = RowUse(slots.used_in, slots.round_no)
        _score_batch(sessions, mode_of, items, totals, now_ms, expansion, model, use, out)
        return out

    def warm_up(self) -> None:
        """Compile the kernels, so that the first request does not wait for it."""
        slots = SlotMap(16)
        slots.assign(np.array([1, 2], np.uint64))
        self.score(padded_sessions([np.array([1, 2], np.uint64)]), empty_items(16), slots, np.zeros(SIZE, np.int64), 1)
