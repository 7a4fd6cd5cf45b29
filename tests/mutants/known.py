"""Plays the mutations of known.toml: changes that tests once let pass, and of which each must now make one fail.

python tests/mutants/known.py [WORD ...]     those whose file or name has one of the words; all without
"""

import sys
import tempfile
import time
import tomllib
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from mutants.tree import KILLED, SURVIVED, Tree

KNOWN = Path(__file__).with_name("known.toml")
TIMEOUT_S = 900.0


def known_mutants() -> list[dict[str, object]]:
    """Return the entries: `name`, `file`, `old`, `new`, `tests`, and `times`, how often `old` occurs (1)."""
    return [{"times": 1, **entry} for entry in tomllib.loads(KNOWN.read_text())["mutant"]]


def mutated(text: str, entry: dict[str, object]) -> str:
    """Return the text with the mutation; raises ValueError where what it changes is not there, or elsewhere too."""
    old, new = str(entry["old"]), str(entry["new"])
    if text.count(old) != entry["times"]:
        raise ValueError(f"{entry['file']} has {text.count(old)} times, not {entry['times']}: {old}")
    return text.replace(old, new)


def main(words: list[str]) -> int:
    entries = [entry for entry in known_mutants()
               if not words or any(word in f"{entry['file']} {entry['name']}" for word in words)]  # fmt: skip
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        tests = sorted({test for entry in entries for test in entry["tests"]})
        if (found := tree.run(tests, TIMEOUT_S, "")) != SURVIVED:
            print(f"the tests do not pass without a mutation: {found}\n{tree.said[-3000:]}")
            return 1
        for entry in entries:
            started = time.monotonic()
            with tree.changed(str(entry["file"]), mutated(tree.read(str(entry["file"])), entry)):
                found = tree.run(entry["tests"], TIMEOUT_S, "")
            survived += found != KILLED
            print(f"{found:8} {time.monotonic() - started:5.0f} s  {entry['file']}: {entry['name']}", flush=True)
            if found != KILLED:
                print(tree.said[-1500:])
    print(f"{len(entries) - survived} of {len(entries)} known mutants are caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
