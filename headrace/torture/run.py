"""Plays the faults, round after round, and counts what differs from an undisturbed run."""

import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.settings import lane_settings
from headrace.console import FAILED, OK, UNAVAILABLE, WRONG_USAGE, err, print_json
from headrace.torture.faults import FAULTS, Unproven, disk_full
from headrace.torture.fuzz import fuzz
from headrace.torture.local_kafka import KafkaMissing, LocalKafka
from headrace.torture.reference import PREFIXES, differing, differing_products, events_seen, fold_sent
from headrace.torture.stage import DRIVERS, FOLD, Stage
from headrace.torture.stream import LEAVING, make_stream
from schemas.ids import hash_id
from state.embedded_redis import RedisMissing
from state.rows import keys

N_EVENTS = 20_000
DISK_LIMIT = 2_000_000


def play(fault: str, driver: str, seed: int, outage_s: float, broker: LocalKafka, folder: Path) -> dict[str, Any]:
    """Play one fault once on a driver; return its figures."""
    act, how = FAULTS[fault]
    sent = make_stream(seed, N_EVENTS, how)
    with Stage(broker, folder, list(sent), seed, driver=driver) as stage:
        act(stage, outage_s)
        if not stage.stream:  # the fault has judged for itself
            return {"rows_compared": 0, "rows_different": 0, "events_lost": 0, "events_doubled": 0}
        stage.settle()
        real, expected = (
            stage.rows(),
            fold_sent(sent, lane_settings(FOLD.model_copy(update={"n_lanes": DRIVERS[driver][0]}))),
        )
    if left := [user for user in LEAVING if any(keys.user(prefix, hash_id(user)) in real for prefix in PREFIXES)]:
        raise Unproven(f"{len(left)} users are still there who were erased, {left[0]} for one")
    compared, wrong = differing(real, expected)
    seen, wanted = events_seen(real), events_seen(expected)
    gaps = [seen.get(user, 0) - wanted.get(user, 0) for user in set(seen) | set(wanted)]
    return {
        "rows_compared": compared,
        "rows_different": wrong + differing_products(real, sent, DRIVERS[driver][0]),
        "events_lost": -sum(gap for gap in gaps if gap < 0),
        "events_doubled": sum(gap for gap in gaps if gap > 0),
    }


def torture(
    faults: list[str], rounds: int, seed: int, outage_s: float, drivers: Sequence[str] = ("loop",)
) -> list[dict[str, Any]]:
    """Play every fault on every driver `rounds` times, with seeds from `seed` on; return one record for each.

    `disk_full` is of the log alone, and played on the first of them.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "kafka") as broker:
        for number, fault, driver in product(range(rounds), faults, drivers):
            if fault == "disk_full" and driver != drivers[0]:
                continue
            record = found.setdefault(
                (fault, driver),
                {"fault": fault, "driver": driver, "rounds": 0, "rows_compared": 0, "rows_different": 0,
                 "events_lost": 0, "events_doubled": 0, "seeds": [], "seconds": 0.0, "troubles": []},
            )  # fmt: skip
            folder = Path(name) / f"{fault}-{driver}-{number}"
            folder.mkdir()
            started = time.perf_counter()
            with err.status(f"{fault} on {driver}, seed {seed + number}"):
                try:
                    figures = _disk(folder) if fault == "disk_full" else play(
                        fault, driver, seed + number, outage_s, broker, folder
                    )  # fmt: skip
                except (Unproven, TimeoutError) as trouble:
                    figures = {"rows_different": 1}
                    record["troubles"].append(f"seed {seed + number}: {trouble}")
            record["rounds"] += 1
            record["seeds"].append(seed + number)
            record["seconds"] = round(record["seconds"] + time.perf_counter() - started, 1)
            for key, value in figures.items():
                record[key] += value
    return list(found.values())


def _disk(folder: Path) -> dict[str, Any]:
    seen = disk_full(folder, DISK_LIMIT)
    lost = max(seen["acknowledged"] - seen["there"], 0)
    return {"rows_compared": seen["there"], "rows_different": int(not seen["in_order"]), "events_lost": lost}


def run(
    rounds: int, only: list[str], drivers: Sequence[str], seed: int, outage_s: float, n_fuzzed: int, json: bool
) -> int:
    """Play the faults and print what came of it; return FAILED when anything differs."""
    there = [*FAULTS, "disk_full"]
    unknown = [fault for fault in only if fault not in there]
    if unknown:
        err.print(f"{unknown[0]!r} is no fault; there are {', '.join(there)}", markup=False)
        return WRONG_USAGE
    try:
        fuzzed = fuzz(n_fuzzed, seed) if n_fuzzed else None
        faults = torture(only or there, rounds, seed, outage_s, drivers)
    except (KafkaMissing, RedisMissing) as error:
        err.print(str(error), markup=False)
        return UNAVAILABLE
    if json:
        print_json({"faults": faults, "events_per_round": N_EVENTS, "outage_s": outage_s, "fuzz": fuzzed})
    else:
        names = (
            "fault",
            "driver",
            "rounds",
            "rows_compared",
            "rows_different",
            "events_lost",
            "events_doubled",
            "seconds",
        )
        table = Table(*names, "seeds", title="rows after a fault against those of an undisturbed run")
        for fault in faults:
            seeds = f"{fault['seeds'][0]}–{fault['seeds'][-1]}"
            table.add_row(
                *(f"{fault[key]:,}" if key not in ("fault", "driver") else fault[key] for key in names), seeds
            )
        Console().print(table)
        for fault in faults:
            for trouble in fault["troubles"]:
                err.print(f"{fault['fault']} on {fault['driver']}: {trouble}", markup=False)
        if fuzzed is not None:
            err.print(f"fuzz: {fuzzed}", markup=False)
    wrong = any(f["rows_different"] or f["events_lost"] or f["events_doubled"] for f in faults)
    spoiled = fuzzed is not None and bool(fuzzed["good_refused"] or fuzzed["good_changed"])
    return FAILED if wrong or spoiled else OK
