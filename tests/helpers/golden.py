"""Files of bytes that stay what they are: when a test of one fails, the code is what changes."""

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_bytes(name: str) -> bytes:
    """Return the bytes that `golden/<name>.hex` holds."""
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def golden_json(name: str) -> Any:
    """Return what `golden/<name>.json` holds."""
    return json.loads((GOLDEN / f"{name}.json").read_text())
