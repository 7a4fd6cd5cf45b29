"""Requests as gRPC frames them, for all ways by which they come.

grpclib reads the wire and not grpcio: a message of a stream takes grpc.aio 121 µs of the
server, an empty call 233, mostly on the way between the threads of its core and the event loop.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

SERVICE = "headrace.v1.Headrace"
MAX_MESSAGE = 4 << 20
"""Bytes of a request, as in grpcio."""
PREFIX_BYTES = 5
"""Of a message: whether it is packed, and its length."""
GZIP = b"\x1f\x8b"

Call = Stream[Any, Any]


class Codec(ProtoCodec):
    """Messages, or the bytes of one that come written."""

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else super().encode(message, message_type)


def secret_of(headers: Mapping[str, str]) -> str:
    """Return the API key that comes with a call, "" without one."""
    return headers.get("x-api-key", "") or headers.get("authorization", "").removeprefix("Bearer ")


async def receive(call: Call) -> Any:
    """Return the one request of a call. Raises GRPCError."""
    prefix = await call._stream.recv_data(PREFIX_BYTES)
    if not prefix:
        raise _no_request()
    size = _size(prefix)
    try:
        body = await call._stream.recv_data(size)
    except AssertionError:
        raise cut_short() from None
    return parsed(_unpacked(body) if prefix[0] else body, call._recv_type.FromString)


def framed(message: bytes) -> bytes:
    """Return a message as it goes over the wire."""
    return b"\0" + len(message).to_bytes(PREFIX_BYTES - 1) + message


def parsed(body: bytes, read: Callable[[bytes], Any]) -> Any:
    """Return the message. Raises GRPCError."""
    try:
        return read(body)
    except DecodeError:
        raise _invalid("the message is no message of this method") from None


def only_message(data: bytearray) -> bytes:
    """Return the one message that came, as it is to be parsed. Raises GRPCError."""
    if not data:
        raise _no_request()
    if len(data) < PREFIX_BYTES or _size(data) != len(data) - PREFIX_BYTES:
        raise _invalid("the message is cut short, or not the only one")
    body = bytes(data[PREFIX_BYTES:])
    return _unpacked(body) if data[0] else body


def next_message(data: bytearray, at: int) -> tuple[bytes | None, int]:
    """Return the message at `at`, None before all of it came, and where the next begins. Raises GRPCError."""
    begin = at + PREFIX_BYTES
    if begin > len(data) or begin + (size := _size(data[at:begin])) > len(data):
        return None, at
    body = bytes(data[begin : begin + size])
    return _unpacked(body) if data[at] else body, begin + size


def _size(prefix: bytes | bytearray) -> int:
    size = int.from_bytes(prefix[1:PREFIX_BYTES])
    if size > MAX_MESSAGE:
        raise too_large()
    return size


def _unpacked(body: bytes) -> bytes:
    if not body.startswith(GZIP):  # grpclib does not say what the header `grpc-encoding` does
        raise GRPCError(Status.UNIMPLEMENTED, "messages may come as they are or packed by gzip")
    try:
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_MESSAGE + 1)
    except zlib.error as error:
        raise _invalid(f"the message cannot be unpacked: {error}") from None
    if len(unpacked) > MAX_MESSAGE:
        raise too_large()
    return unpacked


def too_large() -> GRPCError:
    return GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of more than {MAX_MESSAGE} bytes")


def cut_short() -> GRPCError:
    return _invalid("the message is cut short")


def _no_request() -> GRPCError:
    return _invalid("there is no request")


def _invalid(message: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, message)
