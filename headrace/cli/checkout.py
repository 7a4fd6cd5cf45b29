"""The commit that runs, where headrace runs from a checkout."""

import subprocess
from pathlib import Path

import headrace

UNKNOWN = "unknown"


def commit() -> str:
    """Return the short hash of the checkout's commit, with `+` for changes on top; `unknown` outside a checkout."""
    root = Path(headrace.__file__).parents[1]
    if not (root / ".git").exists():
        return UNKNOWN
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return done.stdout.strip() or UNKNOWN
