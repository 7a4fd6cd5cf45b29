"""Nightly training: factors, embedding, the mixture's parameters, and trees where they are better.

It may import serving.scoring, flows.fold, flows.log, state and schemas, not batch.evaluation. Begin with
`train_anchor.py`. `nightly.py` fits the scoring: `mixture_table.py` holds what is fitted to, `mixture_fit.py` and
`ranker.py` fit. `measure.py` judges a new anchor by the lists of `served_lists.py`, `search.py` the settings of ALS.
"""
