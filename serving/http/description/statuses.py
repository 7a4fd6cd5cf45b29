"""What each status says, with an example of its error and the headers that it brings."""

from collections.abc import Mapping

REASONS = {
    304: "The list has not changed since the one with this `ETag`",
    400: "The body is not JSON, or no whole gzip stream",
    401: "There is no API key, or it is not known",
    403: "The API key lacks the scope",
    404: "It is not known",
    409: "Somebody else put a book meanwhile",
    413: "The body is larger than 1 MiB, or an event larger than the log takes",
    415: "The body has another `Content-Type` or `Content-Encoding`",
    422: "A field is wrong; `error.field` names it",
    429: "The key's rate is spent, or too many requests wait: try again in a second",
    500: "A fault of the server; the message has the id under which its log has the traceback",
    503: "Redis, the log or the schema registry is away: try again in a second",
}
EXAMPLES = {
    400: ("body", "is not one whole gzip stream"),
    401: ("", "needs an API key with scope recommend (`headrace keys add`)"),
    403: ("", "the API key shop-page has no scope rules"),
    404: ("", "the item is not known"),
    413: ("body", "is larger than 1048576 bytes"),
    415: ("Content-Type", "must be application/json; got 'text/plain' (curl: -H 'Content-Type: application/json')"),
    422: ("count", "must be less than or equal to 200; got 300"),
    429: ("", "the API key shop-page may have 500 lists a second"),
    500: ("", "internal error; the server's log says more of request 60932f9c508137ed985142a30a3fea8c"),
    503: ("", "the store is out of reach"),
}
"""Field and message of an error, by status."""
RETRY_AFTER = {"Retry-After": "Seconds to wait before the call is sent again"}
HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "`Bearer`"}, 429: RETRY_AFTER, 503: RETRY_AFTER,
}  # fmt: skip
"""Headers that an error of a status always has."""
