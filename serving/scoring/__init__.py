"""The likeliest next items of a session: candidates from item rows, their features, and the formula that scores them.

It may import state.rows and schemas.compiled: no store, no clock, no client library. Begin with `mixture.py`, the
formula, and `features.py`, what it is computed from; `scorer.py` scores batches of sessions with both.
"""
