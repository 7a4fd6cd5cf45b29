"""What crosses Kafka: Avro schemas of every topic, their decoder into columns, ids and their hashes.

It imports nothing of headrace; `compiled` is what all kernels share. Importing it has no side effects.
Begin with `events.py`, the columns that the fold receives, then `avro_decoder.py`.
"""
