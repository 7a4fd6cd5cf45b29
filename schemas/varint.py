"""Integers as Avro and Protocol Buffers write them."""


def varint(n: int) -> bytes:
    """Return an integer that is not negative in base 128, lowest digit first.

    >>> varint(5), varint(300)
    (b'\\x05', b'\\xac\\x02')
    """
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
