"""Changes the code in one small place after another and asks the tests of its room (rooms.toml) whether they notice.

    python tests/mutants/run.py [ROOM or FILE ...] [--sample N] [--minutes M] [--seed S]

Cosmic Ray says what there is to change. Of each room a sample is taken, as long as the time lasts; survivors are
printed as diffs, to be looked at one by one: a test is missing, or the change makes no difference. equivalent.toml
holds those that make none, by their text, with the reason.
"""

import argparse
import ast
import difflib
import random
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from cosmic_ray.commands.init import _all_work_items as all_work_items
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from mutants.tree import ROOT, SURVIVED, Tree

HERE = Path(__file__).parent
TIMEOUT_S = 600.0
NOT_OURS = (
    "ExceptionReplacer", "VariableInserter", "VariableReplacer", "RemoveDecorator", "ReplaceComparisonOperator_Eq_Is",
    "ReplaceComparisonOperator_NotEq_IsNot", "ReplaceComparisonOperator_Is_Eq", "ReplaceComparisonOperator_IsNot_NotEq",
)  # fmt: skip
"""Operators that fail on dotted names or need the names of variables, leave a kernel uncompiled, which runs alike, or
tell a small constant from itself."""


def tables(name: str) -> list[dict[str, object]]:
    """Return the tables of a file of this folder: its only list."""
    (found,) = tomllib.loads((HERE / name).read_text()).values()
    return list(found)


def code_of(text: str) -> str:
    """Return a module without what tests cannot notice: docstrings and annotations."""
    module = ast.parse(text)
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            for argument in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
                argument.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(0)
    return ast.unparse(module)


def mutants_of(tree: Tree, files: list[str], chance: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (file, text) of the changes that Cosmic Ray knows and that change code, in an order by chance."""
    specs = [spec for file in files for item in all_work_items([Path(file)], {}) for spec in item.mutations]
    chance.shuffle(specs)
    seen = {(file, code_of(tree.read(file))) for file in files}
    for spec in specs:
        file = str(spec.module_path)
        operator = get_operator(spec.operator_name)(**spec.operator_args)
        if spec.operator_name.rpartition("/")[2] in NOT_OURS:
            continue
        mutant = mutate_code(tree.read(file), operator, spec.occurrence)
        try:
            code = (file, code_of(mutant or ""))
        except SyntaxError:
            continue
        if mutant is not None and code not in seen:
            seen.add(code)
            yield file, mutant


def diff_of(file: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), file, file, lineterm="", n=2)
    return "\n".join(lines)


def is_equivalent(file: str, before: str, after: str) -> bool:
    """Say whether this change is on the list of those that make no difference."""
    changed = [line[1:].strip() for line in diff_of(file, before, after).splitlines()[2:] if line.startswith("+")]
    return any(entry["file"] == file and [entry["line"]] == changed for entry in tables("equivalent.toml"))


def files_of(room: dict[str, object], words: list[str]) -> list[str]:
    """Return the modules of a room, those that are asked for."""
    left_out = list(room.get("leave_out", ()))
    paths = sorted((ROOT / str(room["name"])).glob("*.py"))
    names = [str(path.relative_to(ROOT)) for path in paths if path.stem not in ("__init__", *left_out)]
    return [name for name in names if not words or any(word in (name, room["name"]) for word in words)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", nargs="*", help="rooms or files; all without")
    parser.add_argument("--sample", type=int, default=40, help="mutants of each room")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each room")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    figures: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        for room in tables("rooms.toml"):
            files = files_of(room, options.where)
            if not files:
                continue
            print(f"{room['name']}: {len(files)} modules")
            if tree.run(room["tests"], 3 * TIMEOUT_S) != SURVIVED:
                print(f"its tests do not pass as it is\n{tree.said[-3000:]}")
                return 1
            until = time.monotonic() + 60 * options.minutes
            found = mutants_of(tree, files, random.Random(options.seed))
            for file, mutant in islice(found, options.sample):
                if time.monotonic() > until:
                    print("the time is over")
                    break
                before, started = tree.read(file), time.monotonic()
                with tree.changed(file, mutant):
                    outcome = tree.run(room["tests"], TIMEOUT_S)
                if outcome == SURVIVED and is_equivalent(file, before, mutant):
                    outcome = "equivalent"
                figures.setdefault(file, Counter())[outcome] += 1
                print(f"{outcome:10} {time.monotonic() - started:4.0f} s  {file}", flush=True)
                if outcome == SURVIVED:
                    print(diff_of(file, before, mutant), flush=True)
    for file, counts in sorted(figures.items()):
        print(f"{file:40} " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())))
    total = sum(figures.values(), Counter())
    print(f"{'all':40} " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(total.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
