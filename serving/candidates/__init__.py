"""Where items come from: one function for each source, and which sources a strategy tries in which order.

It may import snapshot and what lies below.
Begin with the table SOURCES at the end of `strategies.py`; a source takes a `RequestContext` and adds to its `Pool`.
"""
