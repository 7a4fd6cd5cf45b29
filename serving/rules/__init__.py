"""Business rules: the book of rules, placements and experiments, its store, and the items that pass it.

It may import catalogue and request.
Begin with `model.py`, then `acting.py`; `item_filter.py` turns filters and rules into masks over the catalogue.
"""
