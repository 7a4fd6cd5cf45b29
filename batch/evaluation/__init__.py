"""Measures the quality of answers: predictions of next items by the real fold and scorer, and experiments.

It may import batch.training, serving, flows, state and schemas. Begin with `evaluate.py`; `batch.metrics` has the
figures, `baselines.py` the models to compare with, `experiment_report.py` what an experiment showed.
"""
