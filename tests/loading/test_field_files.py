"""Files of public bug reports (written anew), and what a user may expect of each."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.loading import bare, understood

from headrace.cli.main import load_command
from headrace.loading.errors import BadFile

FILES = Path(__file__).parent / "field"
NEW_YEAR = 1_704_067_200_000
TEN = NEW_YEAR + 10 * 3_600_000

CASES = {
    "F1 leading zeros": (
        "01-leading-zeros.csv",
        [{"type": "view", "user": "007", "item": "0663713001", "ts_ms": TEN},
         {"type": "view", "user": "7", "item": "0108775015", "ts_ms": TEN + 60_000}],
        {},
    ),
    "F2 microseconds": (
        "05-microseconds.csv",
        [{"type": "view", "user": "u1", "item": "tea", "ts_ms": 1_695_262_025_123}],
        {},
    ),
    "F3 a product": (
        "04-product-row.csv",
        [{"type": "product", "item": "sku-1", "title": "Green tea", "ts_ms": NEW_YEAR}],
        {},
    ),
    "F4 quoted empty": (
        "08-quoted-empty.csv",
        [{"type": "view", "user": "u1", "item": "tea", "ts_ms": TEN},
         {"type": "view", "user": "u2", "item": "cup", "brand": "Ours", "price": 1.5, "ts_ms": TEN + 1000}],
        {},
    ),
    "F6 latin1": (
        "07-latin1.csv",
        [{"type": "view", "user": "u1", "item": "tea", "ts_ms": TEN},
         {"type": "product", "item": "tea", "title": "Thé £2", "ts_ms": TEN}],
        {},
    ),
    "F6 ragged": (
        "07-ragged.csv",
        [{"type": "view", "user": "u1", "item": "tea", "ts_ms": TEN}],
        {"has 4 fields, the header has 3": (1, 3), "ts: is empty": (1, 4)},
    ),
    "F7 UTC suffix": (
        "09-utc-suffix.csv",
        [{"type": "view", "user": "u1", "item": "tea", "ts_ms": 1_569_888_000_000}],
        {},
    ),
    "F8 decimal price": (
        "08-decimal-price.parquet",
        [{"type": "view", "user": "u1", "item": "tea", "price": 3.5, "ts_ms": TEN},
         {"type": "view", "user": "u2", "item": "cup", "price": 4.0, "ts_ms": TEN}],
        {},
    ),
    "F9 upper case": ("07-upper.CSV", [{"type": "view", "user": "u1", "item": "tea", "ts_ms": TEN}], {}),
    "F10 future row": (
        "10-one-future-row.csv",
        [{"type": "view", "user": "l1", "item": "a", "ts_ms": 1_793_491_200_000},
         {"type": "view", "user": "l3", "item": "c", "ts_ms": 1_793_577_600_000}],
        {"ts_ms: is ahead of the clock; at most 3,600 s are taken (max_future_s)": (1, 3)},
    ),
}  # fmt: skip
"""By case: file, its events, and reason → (rows, first line) of what is refused."""


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_the_field_is_read_as_its_owner_expects(case):
    file, events, refused = CASES[case]
    found, findings = understood(FILES / file)
    assert bare(found) == events
    assert {reason: (one.n, one.line) for reason, one in findings.refused.items()} == refused


def test_f4_a_required_cell_that_is_empty_refuses_its_row_by_name(tmp_path):
    file = tmp_path / "e.csv"
    file.write_text('user,item,ts\n"",a,1700000000\nu,"",1700000000\nu,a,""\n')
    _, findings = understood(file)
    assert {reason: one.line for reason, one in findings.refused.items()} == {
        "user: is needed, or a session for an anonymous visitor": 2, "item: is needed": 3, "ts: is empty": 4,
    }  # fmt: skip


def test_f5_ten_thousand_numbers_and_then_a_letter(tmp_path):
    file = tmp_path / "codes.csv"
    rows = [f"u,{n},{1_700_000_000 + n}" for n in range(10_050)] + ["u,85123A,1700020000"]
    file.write_text("\n".join(["user,item,ts", *rows]))
    found, findings = understood(file)
    assert len(found) == 10_051
    assert (found[7]["item"], found[-1]["item"]) == ("7", "85123A")
    assert not findings.refused


def test_f6_an_empty_file_is_one_line():
    with pytest.raises(BadFile, match=r"^07-empty\.csv cannot be read as CSV: it is empty$"):
        understood(FILES / "07-empty.csv")


@pytest.mark.kafka
def test_f10_a_future_row_leaves_the_others_on_kafka_too(tmp_path, monkeypatch):
    from headrace.torture.local_kafka import LocalKafka

    now = datetime.now(UTC)
    rows = [f"l{n},a,{(now + timedelta(hours=ahead)).isoformat()}" for n, ahead in enumerate((-48, 300, -24))]
    file = tmp_path / "e.csv"
    file.write_text("\n".join(["user,item,ts", *rows]))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    with LocalKafka(tmp_path / "kafka") as kafka:
        monkeypatch.setenv("HEADRACE_LOG_URL", f"kafka:{kafka.bootstrap}")
        CliRunner().invoke(load_command("headrace.cli", "topics"), [])
        done = CliRunner().invoke(load_command("headrace.cli", "load"), [str(file), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["loaded"], sum(found["refused"].values())) == (0, 2, 1), done.stderr
