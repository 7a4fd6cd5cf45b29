"""How the tests are laid out: what many of them need stands in `tests/helpers`."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = sorted(TESTS.rglob("test_*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_module_imports_another(path):
    assert not [module for module in imported(path) if module.split(".")[-1].startswith("test_")]


def test_no_helper_is_a_test():
    helpers = sorted((TESTS / "helpers").glob("*.py"))
    assert len(helpers) >= 18
    for path in helpers:
        defined = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        assert not [name for name in defined if name.startswith("test_")], path


def laws_of(path):
    """Return the numbers of the laws (design, section 8) that the tests of a module hold, by name or marker."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and (named := re.match(r"test_law_(\d)_", node.name)):
            yield int(named[1])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.law":
            yield ast.literal_eval(node.keywords[0].value)


def test_every_law_of_the_design_is_held_by_a_test():
    held = [law for path in MODULES for law in laws_of(path)]
    assert set(held) == set(range(1, 9))
    assert len(held) > 12
