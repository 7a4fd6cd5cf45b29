"""A call: its requests, the callback that takes the answers, and the error for internal failures."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from serving.engine.metrics import FAILURES
from serving.request.answer import Answer
from serving.request.requests import RecommendRequest

log = structlog.get_logger()

Found = Sequence[Answer] | Exception
Done = Callable[[Found], None]
"""Called once in the loop with the answers to a call, in the order of its requests, or with why there are none.

It may not block. Where it raises, it is called once more, with the failure.
"""


class RequestFailed(Exception):
    """The server could not answer this one call: a fault of its own, logged with this request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"internal error; the server's log says more of request {request_id}")
        self.request_id = request_id


def failed(error: Exception, requests: Sequence[RecommendRequest], request_id: str = "") -> RequestFailed:
    """Count and log why a call has no answer; return what its caller gets, with an id of its own or a new one."""
    request_id = request_id or uuid.uuid4().hex
    FAILURES.inc()
    log.error("a request was not answered", request_id=request_id, requests=len(requests), exc_info=error)
    return RequestFailed(request_id)


@dataclass(slots=True)
class Call:
    """Requests that one caller sent together."""

    requests: Sequence[RecommendRequest]
    key: bytes
    """Calls with the same key have equal requests; b"" is none."""
    done: Done

    def give(self, found: Found) -> bool:
        """Give the caller its answers, or the error; return whether it got answers."""
        try:
            self.done(found)
            return not isinstance(found, Exception)
        except Exception as error:  # of this call; the others of its batch have answers
            wrong = failed(error, self.requests)
        try:
            self.done(wrong)
        except Exception as error:
            log.error("a caller could not be told that its call failed", request_id=wrong.request_id, exc_info=error)
        return False

    def fail(self, error: Exception) -> None:
        """Count and log a failure of the server's, and give it to the caller."""
        self.give(failed(error, self.requests))


class PartialResult:
    """Puts the answers to the parts of a long call together; the parts are answered one after the other."""

    def __init__(self, n: int, done: Done) -> None:
        """`n`: the requests of the whole call."""
        self._left, self._done, self._answers = n, done, list[Answer]()
        self._failed = False

    def put(self, found: Found) -> None:
        """Take the answers to the next part; `done` is called with those of the whole, or with the first failure."""
        if self._failed:
            return
        if isinstance(found, Exception):
            self._failed = True
            self._done(found)
            return
        self._left -= len(found)
        self._answers += found
        if self._left == 0:
            self._done(self._answers)


def parts_of(call: Call, most: int) -> list[Call]:
    """Return the call as calls of at most so many requests each, which answer it together."""
    if len(call.requests) <= most:
        return [call]
    whole = PartialResult(len(call.requests), call.done)
    firsts = range(0, len(call.requests), most)
    return [Call(call.requests[first : first + most], b"", whole.put) for first in firsts]
