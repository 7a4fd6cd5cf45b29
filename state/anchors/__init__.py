"""Anchors at an address: a folder, or an object store with copies on this machine.

It may import `state.anchor` (the format of one anchor), fsspec and prometheus_client, and nothing that folds or serves.
Begin with `contract.py`; `open_anchors.py` makes a store from the settings, `fetcher.py` is how a running flow or
server gets an anchor without waiting for it.
"""
