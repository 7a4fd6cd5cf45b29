"""`evaluate` reads the files that `load` reads, with the same options."""

import numpy as np
import pytest

from batch.evaluation.tables import read_events
from headrace.cli.evaluate_input import Input
from headrace.loading.as_table import write_table
from headrace.loading.plan import Choices
from schemas.events import Kind
from schemas.ids import hash_id

EVENTS = ("timestamp,visitorid,event,itemid,transactionid\n1700000000000,7,view,a,\n1700000001000,7,transaction,a,9\n"
          "1700000001000,7,transaction,b,9\n1700000000500,8,addtocart,a,\n")  # fmt: skip


def test_an_export_becomes_the_events_of_an_evaluation(tmp_path):
    file = tmp_path / "events.csv"
    file.write_text(EVENTS)
    write_table(file, Choices(preset="retailrocket"), tmp_path / "t.parquet")
    events, _ = read_events(tmp_path / "t.parquet")
    assert events["kind"].tolist() == [Kind.VIEW, Kind.ADD_TO_CART, Kind.PURCHASE, Kind.PURCHASE]
    assert events["item"].tolist() == [hash_id(item) for item in ("a", "a", "a", "b")]
    assert np.all(np.diff(events["ts_ms"]) >= 0)


@pytest.mark.parametrize("choices", [Choices(map="user=who,item=thing,ts=when"), None])
def test_the_command_reads_a_table_of_any_columns_with_the_options_of_load_and_without(tmp_path, choices):
    file, who = tmp_path / "e.csv", "who" if choices else "visitor_id"
    rows = "".join(f"u{n % 5};i{n % 7};{1_700_000_000 + 7200 * (n // 15) + 60 * n}\n" for n in range(90))
    file.write_text(f"{who};{'thing' if choices else 'product_id'};{'when' if choices else 'timestamp'}\n" + rows)
    learned = Input(events=file, mapped=choices).read(1_800_000).learned
    assert 60 < len(learned) < 90
