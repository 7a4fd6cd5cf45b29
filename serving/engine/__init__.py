"""Turns calls into answers: micro-batches, the pipeline of a batch, caches, the guarded store, metrics.

It may import ranking and what lies below, and it is the last room that reads a clock: below it time is an argument.
Begin with `pipeline.py`; `micro_batcher.py` collects calls, `request_batch.py` is what happens when something fails.
"""
