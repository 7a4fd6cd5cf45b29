"""The list of known mutants is about the code as it is: each changes what is there, and names tests that are there."""

import ast
import tomllib
from pathlib import Path

import pytest
from mutants.known import known_mutants, mutated

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("entry", known_mutants(), ids=lambda entry: entry["name"])
def test_a_known_mutant_changes_code_and_names_tests_that_are_there(entry):
    text = (ROOT / entry["file"]).read_text()
    ast.parse(mutated(text, entry))
    assert entry["tests"]
    for test in entry["tests"]:
        path, *names = test.split("::")
        assert (ROOT / path).is_file(), path
        defined = [node.name for node in ast.walk(ast.parse((ROOT / path).read_text()))
                   if isinstance(node, ast.FunctionDef)]  # fmt: skip
        for name in names:
            assert name.split("[")[0] in defined, name


def test_rooms_and_their_tests_are_there():
    rooms = tomllib.loads((ROOT / "tests/mutants/rooms.toml").read_text())["room"]
    assert [room["name"] for room in rooms] == ["serving/request", "serving/rules", "state/rows", "flows/fold"]
    for room in rooms:
        assert (ROOT / room["name"] / "__init__.py").is_file()
        assert all((ROOT / test).is_file() for test in room["tests"])
