"""Folds a batch of events into rows: a lane with its tables, kernels for the sums, and user vectors.

It may import `flows.log.contract`, `state` (rows, store contract, anchor) and schemas: no clock, no client library.
Begin with `lane.py`, whose `apply` is the whole fold, then `user_history.py`, the kernel that folds events.
"""
