"""Nightly training: factors, embedding, the mixture's parameters, and trees where they are better.

It may import serving.scoring, flows.fold, flows.log, state and schemas, not batch.evaluation. Begin with `nightly.py`;
`mixture_table.py` holds what is fitted to, `mixture_fit.py` and `ranker.py` fit.
"""
