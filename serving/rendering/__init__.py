"""Answers as bytes: JSON and Protocol Buffers, from byte strings that are kept because most answers share them.

It may import catalogue and request; it is the only room beside the interfaces that knows a wire format.
Begin with `answer_bytes.py`; `items.py` is the plain way of a list, `lists.py` the one of a batch.
"""
