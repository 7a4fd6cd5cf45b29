"""Exit codes of all commands."""

OK, FAILED, WRONG_USAGE, UNAVAILABLE = 0, 1, 2, 3
"""Done; failed; wrong usage or settings; something the command needs is out of reach."""
