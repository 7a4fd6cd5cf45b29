"""Plays the faults, round after round, and counts what differs from an undisturbed run."""

import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.settings import lane_settings
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json
from headrace.torture.faults import FAULTS, Unproven, disk_full
from headrace.torture.fuzz import fuzz
from headrace.torture.local_kafka import KafkaMissing, LocalKafka
from headrace.torture.reference import PREFIX, differing, differing_products, events_seen, fold_sent
from headrace.torture.stage import FOLD, Stage
from headrace.torture.stream import LEAVING, make_stream
from schemas.ids import hash_id
from state.embedded_redis import RedisMissing
from state.rows import keys

N_EVENTS = 20_000
DISK_LIMIT = 2_000_000


def play(fault: str, seed: int, outage_s: float, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """Play one fault once; return its figures."""
    act, how = FAULTS[fault]
    sent = make_stream(seed, N_EVENTS, how)
    with Stage(broker, folder, list(sent), seed) as stage:
        act(stage, outage_s)
        if not stage.stream:  # the fault has judged for itself
            return {"rows_compared": 0, "rows_different": 0, "events_lost": 0, "events_doubled": 0}
        stage.settle()
        real, expected = stage.rows(), fold_sent(sent, lane_settings(FOLD))
    if left := [user for user in LEAVING if keys.user(PREFIX, hash_id(user)) in real]:
        raise Unproven(f"{len(left)} users are still there who were erased, {left[0]} for one")
    compared, wrong = differing(real, expected)
    seen, wanted = events_seen(real), events_seen(expected)
    gaps = [seen.get(user, 0) - wanted.get(user, 0) for user in set(seen) | set(wanted)]
    return {
        "rows_compared": compared,
        "rows_different": wrong + differing_products(real, sent),
        "events_lost": -sum(gap for gap in gaps if gap < 0),
        "events_doubled": sum(gap for gap in gaps if gap > 0),
    }


def torture(faults: list[str], rounds: int, seed: int, outage_s: float) -> list[dict[str, Any]]:
    """Play every fault `rounds` times with seeds from `seed` on; return one record for each fault."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "kafka") as broker:
        for number in range(rounds):
            for fault in faults:
                one_seed = seed + number
                record = found.setdefault(
                    fault,
                    {"fault": fault, "rounds": 0, "rows_compared": 0, "rows_different": 0, "events_lost": 0,
                     "events_doubled": 0, "seeds": [], "seconds": 0.0, "troubles": []},
                )  # fmt: skip
                folder = Path(name) / f"{fault}-{number}"
                folder.mkdir()
                started = time.perf_counter()
                with err.status(f"{fault}, seed {one_seed}"):
                    try:
                        figures = _disk(folder) if fault == "disk_full" else play(
                            fault, one_seed, outage_s, broker, folder
                        )  # fmt: skip
                    except (Unproven, TimeoutError) as trouble:
                        figures = {"rows_different": 1}
                        record["troubles"].append(f"seed {one_seed}: {trouble}")
                record["rounds"] += 1
                record["seeds"].append(one_seed)
                record["seconds"] = round(record["seconds"] + time.perf_counter() - started, 1)
                for key, value in figures.items():
                    record[key] += value
    return list(found.values())


def _disk(folder: Path) -> dict[str, Any]:
    seen = disk_full(folder, DISK_LIMIT)
    lost = max(seen["acknowledged"] - seen["there"], 0)
    return {"rows_compared": seen["there"], "rows_different": int(not seen["in_order"]), "events_lost": lost}


def run(rounds: int, only: list[str], seed: int, outage_s: float, n_fuzzed: int, json: bool) -> int:
    """Play the faults and print what came of it; return FAILED when anything differs."""
    there = [*FAULTS, "disk_full"]
    unknown = [fault for fault in only if fault not in there]
    if unknown:
        err.print(f"{unknown[0]!r} is no fault; there are {', '.join(there)}", markup=False)
        return WRONG_USAGE
    try:
        fuzzed = fuzz(n_fuzzed, seed) if n_fuzzed else None
        faults = torture(only or there, rounds, seed, outage_s)
    except (KafkaMissing, RedisMissing) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json({"faults": faults, "events_per_round": N_EVENTS, "outage_s": outage_s, "fuzz": fuzzed})
    else:
        names = ("fault", "rounds", "rows_compared", "rows_different", "events_lost", "events_doubled", "seconds")
        table = Table(*names, "seeds", title="rows after a fault against those of an undisturbed run")
        for fault in faults:
            seeds = f"{fault['seeds'][0]}–{fault['seeds'][-1]}"
            table.add_row(*(f"{fault[key]:,}" if key != "fault" else fault[key] for key in names), seeds)
        Console().print(table)
        for fault in faults:
            for trouble in fault["troubles"]:
                err.print(f"{fault['fault']}: {trouble}", markup=False)
        if fuzzed is not None:
            err.print(f"fuzz: {fuzzed}", markup=False)
    wrong = any(f["rows_different"] or f["events_lost"] or f["events_doubled"] for f in faults)
    spoiled = fuzzed is not None and bool(fuzzed["good_refused"] or fuzzed["good_changed"])
    return FAILED if wrong or spoiled else OK
