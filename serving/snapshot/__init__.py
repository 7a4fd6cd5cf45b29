"""The server's snapshot: item rows, top lists, rules and anchor of one generation, and the visitors' rows.

It may import rendering, rules and what lies below.
Begin with `snapshot.py`; `visitor.py` is one user as an answer sees them.
"""
