"""What `headrace plan` computes: bounds that hold, growth that is monotone, files that are read and refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli import plan as command
from headrace.planning.costs import MEASURED, BadCosts, Prices, merge_costs, read_costs, read_prices
from headrace.planning.load import Load
from headrace.planning.plan import distinct_items, plan
from headrace.sizes import parse_size

COSTS = read_costs(None)
loads = st.builds(
    Load, events_per_day=st.floats(1e3, 1e10), rps=st.floats(0, 1e5), users=st.floats(1, 1e8), items=st.floats(1, 1e7)
)


def part(found, name):
    return next(one for one in found.parts if one.name == name)


@given(loads)
def test_every_part_can_take_its_share(load):
    found = plan(load, COSTS)
    flow, redis, server = (part(found, name) for name in ("flow", "redis", "server"))
    if found.fits:
        an_event_s = (COSTS.ingest.read_us + COSTS.ingest.fold_us / flow.n) / 1e6
        assert load.peak_events_per_s * an_event_s <= load.busy * 1.0001
    assert load.rps * COSTS.serving.http_us / 1e6 <= server.n * load.busy * 1.0001
    assert redis.memory_gib / redis.n <= load.shard_gib * 1.25 * 1.0001
    assert found.lanes >= max(flow.n, redis.n / load.copies)
    assert found.price(Prices()) > 0


@given(loads, st.floats(1, 10), st.sampled_from(["events_per_day", "rps", "users", "items"]))
def test_more_of_anything_never_needs_less(load, factor, field):
    larger = load.model_copy(update={field: getattr(load, field) * factor})
    before, after = plan(load, COSTS), plan(larger, COSTS)
    assert after.price(Prices()) >= before.price(Prices()) * 0.999
    assert all(after.busy[name] >= before.busy[name] * 0.999 for name in before.busy if "lane" not in name)


def test_where_reading_alone_fills_a_core_no_number_of_processes_is_enough(capsys):
    at_bound = Load().busy / (COSTS.ingest.read_us / 1e6) * 86_400 / Load().peak
    assert plan(Load(events_per_day=at_bound * 0.99), COSTS).fits
    assert command.run(Load(events_per_day=at_bound * 1.5), None, None, False) == 1
    assert "1.5 times what there is" in capsys.readouterr().out


@pytest.mark.parametrize(("views", "items"), [(1, 50), (1000, 50), (10_000, 2_000_000)])
def test_different_items_are_those_of_a_sum_over_all(views, items):
    share = [1 / rank**1.05 for rank in range(1, items + 1)]
    total = sum(share)
    exact = sum(-math.expm1(views * math.log1p(-one / total)) for one in share)
    assert distinct_items(views, items) == pytest.approx(exact, rel=0.02)


def test_costs_that_a_benchmark_wrote_are_those_of_the_plan(tmp_path):
    path = tmp_path / "costs.json"
    merge_costs(path, "ingest", {"fold_us": 100.0, "data": "here"})
    assert read_costs(path).ingest.fold_us == 100.0
    assert read_costs(path).serving == COSTS.serving
    dear = plan(Load(events_per_day=1e9), read_costs(path))
    assert part(dear, "flow").n > part(plan(Load(events_per_day=1e9), COSTS), "flow").n
    path.write_text(path.read_text().replace("100.0", '"much"'))
    with pytest.raises(BadCosts, match=r"costs\.json: ingest\.fold_us: "):
        read_costs(path)


@pytest.mark.parametrize("text", ["", "{", '{"core": "dear"}', '{"colour": 1}'])
def test_prices_that_cannot_be_read_are_named(tmp_path, text):
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(BadCosts, match=r"prices\.json: "):
        read_prices(path)
    with pytest.raises(BadCosts, match="No such file"):
        read_prices(tmp_path / "nowhere.json")
    path.write_text('{"core": 50}')
    assert read_prices(path) == Prices(core=50)


def test_what_was_measured_says_where():
    assert MEASURED.exists()
    assert all(part.data for part in (COSTS.ingest, COSTS.serving, COSTS.training))


def test_numbers_are_read_as_people_write_them():
    assert [parse_size(text) for text in ("50k", "1.5B", "10,000", "3")] == [50_000, 1.5e9, 10_000, 3]
