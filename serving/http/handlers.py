"""Handlers that turn the body of a POST into the JSON of its answer, for one request and for a batch."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fastapi import Response
from pydantic import BaseModel, ValidationError

from serving.auth.api_keys import Guard, Refused
from serving.engine.calls import RequestFailed, failed
from serving.engine.metrics import count as count_answers
from serving.engine.micro_batcher import MicroBatcher, Overloaded
from serving.engine.recommender import BadRequest, Recommender
from serving.http.errors import BUSY, error, refused
from serving.http.fast_protocol import Handler, Reply
from serving.rendering.answer_bytes import answer_json, batch_json
from serving.request.answer import Answer
from serving.request.requests import BatchRequest, RecommendRequest, first_error
from state.store.contract import StoreUnavailable

RECOMMEND, BATCH = "/v1/recommend", "/v1/recommend/batch"

Requests = Callable[[bytes], list[RecommendRequest]]
Model = TypeVar("Model", bound=BaseModel)


def make_handlers(
    recommender: Recommender, batcher: MicroBatcher, guard: Guard, note_user: Callable[[str | None], None]
) -> Mapping[bytes, Handler]:
    """Return the handlers of POST, by path; `note_user` is called with the user of each single request."""

    def one_of(body: bytes) -> list[RecommendRequest]:
        # Validated here: the framework's own way through its dependencies takes twice as long.
        request = _read(RecommendRequest, body or b"{}")
        recommender.check(request)
        note_user(request.user)
        return [request]

    def many_of(body: bytes) -> list[RecommendRequest]:
        requests = _read(BatchRequest, body).requests
        for n, request in enumerate(requests):
            try:
                recommender.check(request)
            except BadRequest as wrong:
                raise BadRequest(f"requests.{n}.{wrong.field}", wrong.message) from None
        return requests

    def handler(method: str, requests_of: Requests, json_of: Callable[[Sequence[Answer]], bytes]) -> Handler:
        def charged(body: bytes, secret: str) -> list[RecommendRequest]:
            n_lists = 1  # of a request that cannot be read, too
            try:
                requests = requests_of(body)
                n_lists = len(requests)
            finally:
                guard.admit(secret, "recommend", n_lists)
            return requests

        def handle(body: bytes, secret: str, reply: Reply) -> None:
            def done(found: Sequence[Answer] | Exception) -> None:
                if isinstance(found, Exception):
                    reply(_failure(found))
                else:
                    count_answers(method, found)
                    reply(json_of(found))

            try:
                batcher.submit(charged(body, secret), body, done)
            except Exception as wrong:
                reply(_failure(wrong))

        return handle

    return {
        RECOMMEND.encode(): handler("recommend", one_of, lambda answers: answer_json(answers[0])),
        BATCH.encode(): handler("batch", many_of, batch_json),
    }


def _read(model: type[Model], body: bytes) -> Model:
    """Return the request in a body. Raises BadRequest."""
    try:
        return model.model_validate_json(body)
    except ValidationError as wrong:
        raise BadRequest(*_first_wrong(model, body, wrong)) from None


def _first_wrong(model: type[BaseModel], body: bytes, wrong: ValidationError) -> tuple[str, str]:
    """Return (field, message) of the first thing that is wrong; half an emoji is wrong in a field, not in the JSON."""
    if wrong.errors()[0]["type"] == "json_invalid":
        try:
            model.model_validate(json.loads(body))
        except ValidationError as in_field:
            return first_error(in_field)
        except (ValueError, RecursionError):  # it is no JSON in any way
            pass
    return first_error(wrong)


def _failure(wrong: Exception) -> Response:
    """Return the response to a request that has no answer."""
    if isinstance(wrong, BadRequest):
        return error(422, wrong.field, wrong.message)
    if isinstance(wrong, Refused):
        return refused(wrong)
    if isinstance(wrong, Overloaded):
        return error(429, "", str(wrong), **BUSY)
    if isinstance(wrong, StoreUnavailable):
        return error(503, "", "the store is out of reach", **BUSY)
    if not isinstance(wrong, RequestFailed):
        wrong = failed(wrong, ())
    return error(500, "", str(wrong))
