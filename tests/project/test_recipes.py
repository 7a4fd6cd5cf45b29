"""The recipes of CONTRIBUTING.md, followed to the letter on a copy of the sources, and tried."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("headrace", "batch", "serving", "flows", "state", "schemas", "tests")
CATALOGUE = """
    import conftest
    from schemas.ids import hash_ids
    from serving.catalogue.catalogue import Catalogue

    catalogue = Catalogue([b"{g1:0}"])
    products = {"cup": {"price": 8.0}, "tea": {"price": 4.0}, "old": {}}
    catalogue.take(list(products), hash_ids(list(products)), list(products.values()))
"""
"""What trials about items begin with."""
TRIALS = {
    "Add an event type": """
        from flows.settings import lane_settings
        from schemas.events import Kind
        from schemas.json_events import encode, event_from_json
        from schemas.registry import FolderRegistry
        from headrace.settings import Settings

        topic, record, key = event_from_json({"type": "compare", "event_id": "e", "user": "u", "item": "i"}, 2**40)
        assert topic == "user-events" and encode(topic, record, FolderRegistry())
        assert lane_settings(Settings(weight_view=2)).weights[Kind.COMPARE] == 2
    """,
    "Add a source": """
        from types import SimpleNamespace

        from serving.candidates.pool import Pool
        from serving.candidates.strategies import SOURCES
        from serving.request.reasons import reason
        from serving.request.requests import STRATEGIES, RecommendRequest
        from serving.rules.acting import NO_RULES
        from serving.rules.item_filter import Selections
        from serving.snapshot.scratch import Scratch

        pool = Pool(catalogue, Selections(catalogue).of(True, None, NO_RULES, 1), Scratch())
        said = {("cheapest", "low_price", "en", None): reason("low_price")}
        shop = SimpleNamespace(catalogue=catalogue, reasons=said)
        assert set(SOURCES) == set(STRATEGIES)
        cheapest = SOURCES[RecommendRequest(strategy="cheapest").strategy][0]
        cheapest(SimpleNamespace(shop=shop, pool=pool, want=2, lang="en"))
        assert [catalogue.ids[row] for row in pool.candidates().row] == ["tea", "cup"]
        assert pool.tiers[0].reasons([0])[0].text == "at a low price"
    """,
    "Add a rule action": """
        from serving.rules.acting import Acting
        from serving.rules.item_filter import Selections
        from serving.rules.model import Book

        book = Book.model_validate({"rules": [{"id": "r", "action": "min_price", "least": 5}]})
        mask = Selections(catalogue).of(True, None, Acting(book.rules), 1).mask
        assert dict(zip(catalogue.ids, mask.tolist())) == {"cup": True, "tea": False, "old": True}
    """,
    "Add a feature": """
        from state.rows.features import FEATURES, Reading
        from state.rows.user_rows import empty_users

        users = empty_users(1)
        users["counts"][0], users["seen"][0] = [3, 1, 0, 0], 4
        found = next(feature for feature in FEATURES if feature.name == "user.carts_share")
        assert found.read(users[0], Reading(0, (1, 1))) == 0.25
    """,
    "Add a setting": """
        import os
        from types import SimpleNamespace

        from headrace.settings import load_settings
        from serving.candidates import strategies

        os.environ["HEADRACE_DEFAULT_COUNTRY"] = "DE"
        request, lists = SimpleNamespace(filters=None, country=None), []
        shop = SimpleNamespace(settings=load_settings(), popular=0, scope=lambda kind, name, now_ms: lists.append(name))
        context = SimpleNamespace(visitor=SimpleNamespace(request=request, now_ms=0), shop=shop, lang="en")
        strategies._top_lists(context)
        assert lists == ["DE"]
    """,
}


def steps_of(recipe: str) -> list[tuple[str, str, str]]:
    """Return (file, lines before, lines after) of each diff of a recipe."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = re.search(rf"^### {recipe}\n(.*?)(?=^##)", text, re.M | re.S)
    assert section is not None
    steps = []
    for block in re.findall(r"^ *```diff\n(.*?)^ *```$", section[1], re.M | re.S):
        head, *lines = textwrap.dedent(block).splitlines()
        before = "".join(line[1:] + "\n" for line in lines if line[:1] != "+")
        after = "".join(line[1:] + "\n" for line in lines if line[:1] != "-")
        steps.append((head.removeprefix("--- "), before, after))
    return steps


@pytest.mark.e2e
@pytest.mark.parametrize("recipe", TRIALS)
def test_a_recipe_works_as_it_stands(recipe, tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    steps = steps_of(recipe)
    assert steps
    for file, before, after in steps:
        path = tmp_path / file
        source = path.read_text()
        assert source.count(before) == 1, (file, before)
        path.write_text(source.replace(before, after))
    paths = [str(tmp_path), str(tmp_path / "tests")]
    trial = textwrap.dedent(CATALOGUE) + textwrap.dedent(TRIALS[recipe])
    done = subprocess.run(
        [sys.executable, "-c", trial], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
