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
TRIALS = {
    "Add an event type": """
        from flows.settings import lane_settings
        from schemas.events import Kind
        from schemas.json_events import encode, event_from_json
        from schemas.registry import FolderRegistry
        from state.settings import Settings

        topic, record, key = event_from_json({"type": "compare", "event_id": "e", "user": "u", "item": "i"}, 2**40)
        assert topic == "user-events" and encode(topic, record, FolderRegistry())
        assert lane_settings(Settings(weight_view=2)).weights[Kind.COMPARE] == 2
    """,
    "Add a source": """
        from serving_rows import product, shop_events
        from test_service import ask, items, recommender_of

        products = [product("cup", "Cup", price=8.0), product("tea", "Tea", price=4.0), product("old", "Old")]
        answer = ask(recommender_of(shop_events(), products)[0], strategy="cheapest", count=2)
        assert items(answer) == ["tea", "cup"]
        assert answer.items[0].reason.text == "at a low price"
    """,
    "Add a rule action": """
        from serving_rows import product, shop_events
        from test_service import ask, items, recommender_of
        from serving.http.rules_api import trial
        from serving.request.requests import RecommendRequest

        products = [product("cup", "Cup", price=8.0), product("tea", "Tea", price=4.0)]
        shop, book = recommender_of(shop_events(), products)[0], {"rules": [{"id": "r", "action": "min_price", "least": 5}]}
        answer = shop.recommend([RecommendRequest(user="ann")], 2**40, trial(book))[0]
        assert {"cup", "tea"} <= set(items(ask(shop, user="ann")))
        assert "cup" in items(answer) and "tea" not in items(answer)
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
    paths = [str(tmp_path), str(tmp_path / "tests"), str(tmp_path / "tests" / "serving")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRIALS[recipe])], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
