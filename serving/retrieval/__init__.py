"""Vector search: the items whose factors have the largest inner product with a user's vector, filters included.

It may import faiss, state (anchor, rows) and schemas. Begin with `vector_index.py`, which searches; `build.py` chooses
the kind of index, and `new_items.py` adds items that the anchor does not know.
"""
