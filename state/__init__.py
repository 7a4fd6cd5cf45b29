"""State between batches: rows and their bytes, their store, generations of them, and anchors.

It may import schemas only; its rooms are `rows` (bytes and keys), `store` (Redis and the commit) and `anchors`.
Begin with `store/contract.py`, what a fold and a server ask of a store, then `rows/keys.py`, every key there is.
"""
