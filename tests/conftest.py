from pathlib import Path

from hypothesis import settings

# The first example of a test compiles kernels, so a wall-clock deadline says nothing.
settings.register_profile("headrace", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("headrace")

ROOT = Path(__file__).parents[1]


def pytest_sessionstart():
    """Drop compiled kernels when any source is newer: numba looks at the outermost function's file only."""
    packages = [ROOT / name for name in ("schemas", "state", "flows", "serving")]
    newest = max(path.stat().st_mtime for package in packages for path in package.rglob("*.py"))
    for package in packages:
        for compiled in package.rglob("*.nb[ci]"):
            if compiled.stat().st_mtime < newest:
                compiled.unlink()
