"""RawBatches from messages, as a log would give them."""

import numpy as np

from flows.log.contract import RawBatch


def raw_batch(messages, first_offset=0):
    """Return (topic, value) pairs as one batch; a value None is a tombstone whose key is the topic's third part."""
    topics = tuple(dict.fromkeys(topic for topic, *_ in messages))
    values = [value or b"" for _, value, *_ in messages]
    bounds = np.cumsum([0, *map(len, values)]).astype(np.int64)
    stream = np.array([topics.index(topic) for topic, *_ in messages], np.int32)
    counts = dict.fromkeys(topics, 0)
    offsets = []
    for topic, *_ in messages:
        offsets.append(first_offset + counts[topic])
        counts[topic] += 1
    return RawBatch(
        tuple(f"{topic}:0" for topic in topics),
        stream,
        np.array(offsets, np.int64),
        np.frombuffer(b"".join(values), np.uint8),
        bounds,
        {f"{topic}:0": first_offset for topic in counts},
        {f"{topic}:0": first_offset + n for topic, n in counts.items()},
        {i: message[2] for i, message in enumerate(messages) if message[1] is None},
    )
