"""Sources of items, one function each, and the order in which a strategy tries its sources.

It may import snapshot and what lies below.
Begin with the table SOURCES at the end of `strategies.py`; a source takes a `RequestContext` and adds to its `Pool`.
"""
