"""A client of a headrace server over HTTP, for programs in Python."""

import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, overload

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

Json = dict[str, Any]
PASSING = (429, 503)
"""Statuses of a server that may take the same call a moment later."""


class ServerError(Exception):
    """The server refused a call; `status`, the `field` at fault ("" for none) and `message` have the reason.

    `errors`: all that is wrong, where the server names more than the first thing: `index`, `field` and `message` of
    each event (up to 100).
    """

    def __init__(self, status: int, field: str, message: str, errors: Sequence[Json] = ()) -> None:
        super().__init__(f"{status}: {field}: {message}" if field else f"{status}: {message}")
        self.status, self.field, self.message, self.errors = status, field, message, list(errors)


class Client:
    """Sends events and requests recommendations. One client may be used by many threads.

    >>> with Client("http://127.0.0.1:8080") as shop:                                        # doctest: +SKIP
    ...     shop.send({"type": "view", "user": "ann", "item": "tea"})
    ...     [item["item"] for item in shop.recommend(user="ann", count=3)["items"]]
    ['cup', 'kettle', 'honey']
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8080", api_key: str = "", timeout_s: float = 5.0, attempts: int = 3
    ) -> None:
        """`timeout_s`: of one attempt; `attempts`: of one call, when the server is away or busy."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self._attempts = attempts

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def send(self, *events: Mapping[str, Any], partial: Literal[False] = False) -> list[str | None]: ...

    @overload
    def send(self, *events: Mapping[str, Any], partial: Literal[True]) -> Json: ...

    def send(self, *events: Mapping[str, Any], partial: bool = False) -> list[str | None] | Json:
        """Append events to the log, all of them or none; return their ids (None for a product).

        With `partial` those that are good: returns the server's answer, with `accepted`, `event_ids`, and `errors`
        (`index`, `field` and `message` of each refused event, up to 100) of `n_errors`.

        An attempt that is repeated counts once: all attempts of a call carry one key. Raises ServerError where no event
        is taken, httpx.TransportError when the server cannot be reached.
        """
        path = "/v1/events?partial=true" if partial else "/v1/events"
        answer = self._call("POST", path, list(events), {"Idempotency-Key": uuid.uuid4().hex})
        if partial:
            return answer
        ids: list[str | None] = answer["event_ids"]
        return ids

    def recommend(self, **request: Any) -> Json:
        """Return the answer to a request (docs/recommend.md has its fields). Raises as `send` does."""
        return self._call("POST", "/v1/recommend", request)

    def recommend_batch(self, requests: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Return the answers to requests, in their order. Raises as `send` does."""
        answers: list[Json] = self._call("POST", "/v1/recommend/batch", {"requests": list(requests)})["answers"]
        return answers

    def similar(self, item: str, **options: Any) -> Json:
        """Return the items most like one; `options`: more fields of a request. Raises as `send` does."""
        return self.recommend(items=[item], strategy="similar", **options)

    def popular(self, **options: Any) -> Json:
        """Return the most popular items; `options`: `scope`, `name`, `count`, `lang`. Raises as `send` does."""
        return self._call("GET", "/v1/popular", options)

    def _call(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Json:
        waiting = wait_exponential(0.05, max=1)
        again = retry_if_exception(_may_pass)
        for attempt in Retrying(stop=stop_after_attempt(self._attempts), wait=waiting, retry=again, reraise=True):
            with attempt:
                return self._once(method, path, body, headers)
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None) -> Json:
        how = {"params": body} if method == "GET" else {"json": body}
        response = self._http.request(method, path, headers=headers, **how)
        if response.is_success:
            found: Json = response.json()
            return found
        try:
            refusal = response.json()
            detail = refusal["error"]
        except (ValueError, KeyError, TypeError):
            raise ServerError(response.status_code, "", response.text[:200]) from None
        errors = refusal.get("errors", ())
        raise ServerError(response.status_code, detail.get("field", ""), detail.get("message", ""), errors)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, httpx.TransportError) or (isinstance(error, ServerError) and error.status in PASSING)
