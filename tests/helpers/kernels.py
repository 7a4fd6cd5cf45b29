"""Compiles the kernels of a package's programs, as they do at their start: `python tests/helpers/kernels.py flows`."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    importlib.import_module("schemas.ids").use_key(bytes(16))
    importlib.import_module({"flows": "flows.warm_up", "serving": "serving.app.warm_up"}[sys.argv[1]]).warm_up()
