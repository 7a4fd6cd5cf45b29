"""The rows that flow and server share: their layout in memory, their bytes in the store, and their keys.

It may import schemas alone: no store, no clock. Begin with `keys.py`, which lists all rows, then `item_rows.py` and
`user_rows.py`; `decay.py` has the sums that fade with time.
"""
