"""From the body of a POST to the JSON of its answer, for one request and for a batch; who serves HTTP calls back."""

from collections.abc import Callable, Mapping, Sequence

import structlog
from fastapi import Response
from pydantic import ValidationError

from serving.answer_counts import count as count_answers
from serving.gather import Gather, Overloaded
from serving.hot_path import Ask, Reply
from serving.http_parts import error
from serving.requests import Answer, BatchRequest, RecommendRequest, first_error
from serving.service import BadRequest, Recommender
from serving.wire import answer_json, batch_json

RECOMMEND, BATCH = "/v1/recommend", "/v1/recommend/batch"

Requests = Callable[[bytes], list[RecommendRequest]]

log = structlog.get_logger()


def make_asks(recommender: Recommender, gather: Gather, met: Callable[[str | None], None]) -> Mapping[bytes, Ask]:
    """Return what answers POST, by path; `met` is told the user of each single request."""

    def one_of(body: bytes) -> list[RecommendRequest]:
        # Validated here: the framework's own way through its dependencies takes twice as long.
        try:
            asked = RecommendRequest.model_validate_json(body or b"{}")
        except ValidationError as wrong:
            raise BadRequest(*first_error(wrong)) from None
        recommender.check(asked)
        met(asked.user)
        return [asked]

    def many_of(body: bytes) -> list[RecommendRequest]:
        try:
            requests = BatchRequest.model_validate_json(body).requests
        except ValidationError as wrong:
            raise BadRequest(*first_error(wrong)) from None
        for n, asked in enumerate(requests):
            try:
                recommender.check(asked)
            except BadRequest as wrong:
                raise BadRequest(f"requests.{n}.{wrong.field}", wrong.message) from None
        return requests

    def asking(method: str, requests_of: Requests, json_of: Callable[[Sequence[Answer]], bytes]) -> Ask:
        def ask(body: bytes, reply: Reply) -> None:
            def done(found: Sequence[Answer] | Exception) -> None:
                if isinstance(found, Exception):
                    reply(_failure(found))
                else:
                    count_answers(method, found)
                    reply(json_of(found))

            try:
                gather.ask(requests_of(body), body, done)
            except Exception as wrong:
                reply(_failure(wrong))

        return ask

    return {
        RECOMMEND.encode(): asking("recommend", one_of, lambda answers: answer_json(answers[0])),
        BATCH.encode(): asking("batch", many_of, batch_json),
    }


def _failure(wrong: Exception) -> Response:
    """Return the response to a request that has no answer."""
    if isinstance(wrong, BadRequest):
        return error(422, wrong.field, wrong.message)
    if isinstance(wrong, Overloaded):
        return error(429, "", str(wrong), **{"Retry-After": "1"})
    log.error("a request was not answered", exc_info=wrong)
    return error(500, "", "internal error")
