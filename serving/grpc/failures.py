"""Turns errors into gRPC statuses, with details that clients can read (`google.rpc`)."""

from typing import NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from serving.auth.api_keys import Refused
from serving.engine.calls import RequestFailed, failed
from serving.engine.micro_batcher import Overloaded
from serving.engine.recommender import BadRequest
from state.store.contract import StoreUnavailable

Code = grpc.StatusCode
REFUSALS = {401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 422: Code.INVALID_ARGUMENT}
RETRY_S = 1
MAX_TEXT = 1000
"""Characters of a message: it may repeat what was asked, and clients take little metadata."""


class Failure(Exception):
    """A call that ends with a status of its own."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Status(NamedTuple):
    """How a call ends: `trailers` holds the details, in the one header that all clients know."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...] = ()


def status_of(error: Exception, request_id: str) -> Status:
    """Return the status of a call that ends with `error`; what nobody foresaw is logged with the id."""
    match error:
        case Failure():
            return Status(error.code, error.message)
        case BadRequest():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.field[:MAX_TEXT], description=error.message[:MAX_TEXT]
            )
            return _detailed(
                Code.INVALID_ARGUMENT, str(error), error_details_pb2.BadRequest(field_violations=[violation])
            )
        case DecodeError():
            return Status(Code.INVALID_ARGUMENT, "the message is no message of this method")
        case Refused(status=429):
            return _retry(Code.RESOURCE_EXHAUSTED, error.message)
        case Refused():
            return Status(REFUSALS[error.status], error.message)
        case Overloaded():
            return _retry(Code.RESOURCE_EXHAUSTED, f"{error}; try again in a second")
        case StoreUnavailable():
            return _retry(Code.UNAVAILABLE, "the store is out of reach")
        case RequestFailed():
            return Status(Code.INTERNAL, str(error))
        case _:
            return Status(Code.INTERNAL, str(failed(error, (), request_id)))


def _retry(code: grpc.StatusCode, message: str) -> Status:
    return _detailed(code, message, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=RETRY_S)))


def _detailed(code: grpc.StatusCode, message: str, detail: Message) -> Status:
    message = message[:MAX_TEXT]
    packed = any_pb2.Any()
    packed.Pack(detail)
    status = rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=[packed]))
    return Status(code, message, tuple(status.trailing_metadata))
