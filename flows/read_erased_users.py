"""Reads all erasures in the log before a replay."""

from flows.fold.erased_users import EMPTY, Erased, erasures_of
from flows.log.contract import Log
from flows.log.read_to import read_to
from schemas.avro_decoder import Limits, decode
from schemas.ids import hash_id
from schemas.registry import SchemaRegistry
from state.store.contract import Positions


def read_erased(log: Log, registry: SchemaRegistry, until: Positions, now_ms: int, patience_s: float) -> Erased:
    """Return who was erased by the log's erasures before `until`; what retention removed of them is not known.

    Raises LogUnavailable when nothing more comes for `patience_s`, RegistryUnavailable, PositionLost.
    """
    last: dict[int, int] = {}
    until = erasures_of(until)
    if not until:
        return EMPTY
    # Of all else only what comes while this reads.
    start = {**log.end(), **erasures_of(log.start())}
    for raw in read_to(log, start, until, patience_s):
        for erasure in decode(raw, registry, now_ms, Limits()).erasures:
            user = hash_id(erasure.user)
            last[user] = max(last.get(user, 0), erasure.ts_ms)
    return Erased.of(last)
