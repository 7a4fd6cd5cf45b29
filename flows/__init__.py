"""The fold as a program: it reads the log batch by batch, folds events into rows and commits rows and positions.

It may import state and schemas; its rooms are `log` (where events come from) and `fold` (what becomes of them).
Begin with `runner.py`, the loop that every driver shares, then `flow.py` (leases, recovery) and `run.py` (the program).
"""
