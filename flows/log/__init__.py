"""Where events come from: one contract, on Kafka and on a file of SQLite, and the topic of dead letters.

It may import schemas and the positions of `state.store.contract`, and never the fold.
Begin with `contract.py`; `open_log.py` makes a log from an address.
"""
