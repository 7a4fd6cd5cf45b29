"""`POST /v1/events`: the events of a call are taken all or none, or in part where the caller says so."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import structlog
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from prometheus_client import Counter

from flows.log.contract import Log, LogUnavailable, Message, MessageRefused, MessageTooLarge, NotConfirmed
from schemas.json_events import InvalidEvent, encode, event_from_json
from schemas.registry import RegistryUnavailable, SchemaRegistry
from schemas.validate import Limits
from serving.auth.api_keys import Guard
from serving.engine.clock import now_ms
from serving.engine.metrics import SERVER
from serving.http.errors import BUSY, readable
from serving.http.middleware import check_events
from serving.http.schema_ids import SchemaIds

MAX_EVENTS, MOST_LISTED = 1000, 100
AT_ONCE, MOST_WAITING = 16, 256
"""Calls under way, each in a thread, and all that have not been answered."""
FAILURES, PAUSE_S = 3, 2.0
"""After so many calls in a row that found the log away, only one tries in each pause; the others need not wait."""
NO_ID = ("product", "product_gone")
APPENDED = Counter("headrace_events_appended", "Events taken over HTTP", registry=SERVER)
log = structlog.get_logger()


@dataclass(frozen=True, order=True)
class Refusal:
    """Why one event of a call is not taken."""

    index: int
    status: int
    field: str
    message: str

    def named(self) -> dict[str, Any]:
        """Return it as answers have it."""
        return {"index": self.index, "field": readable(self.field), "message": readable(self.message)}


class NotTaken(Exception):
    """Why nothing of a call is taken."""

    def __init__(
        self, status: int, field: str, message: str, event_ids: list[str | None] | None = None,
        refusals: Sequence[Refusal] = (),
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.field, self.message, self.event_ids = status, field, message, event_ids
        self.refusals = refusals

    @classmethod
    def of(cls, refusals: Sequence[Refusal]) -> "NotTaken":
        """Return the refusal of a call for its events, which names the first one and lists all."""
        first = refusals[0]
        where = f"[{first.index}].{first.field}" if first.field else f"[{first.index}]"
        return cls(first.status, where, first.message, refusals=refusals)

    def answer(self) -> JSONResponse:
        """Return the answer: with the events at fault, or with the ids with which the call may be repeated."""
        body: dict[str, Any] = {"error": {"field": readable(self.field), "message": readable(self.message)}}
        if self.refusals:
            body |= listed(self.refusals)
        if self.event_ids is not None:
            body["event_ids"] = self.event_ids
        return JSONResponse(body, self.status, BUSY if self.status == 503 else None)


def listed(refusals: Sequence[Refusal]) -> dict[str, Any]:
    """Return refusals as answers list them: the first of them, and how many there are."""
    return {"errors": [one.named() for one in refusals[:MOST_LISTED]], "n_errors": len(refusals)}


class _Gate:
    """Shuts for a while when several calls in a row found the log away."""

    def __init__(self) -> None:
        self._failures, self._shut_until = 0, 0.0
        self.round = 0
        """Counts failures while it is shut: a call of an earlier round need not try."""

    def enter(self) -> bool:
        """Return whether a call may try; the first one after a pause tries for all."""
        if self._failures >= FAILURES:
            if time.monotonic() < self._shut_until:
                return False
            self._shut_until = time.monotonic() + PAUSE_S
        return True

    def note(self, found: bool) -> None:
        """Take notice of a call that found the log, or did not."""
        self._failures = 0 if found else self._failures + 1
        if self._failures >= FAILURES:
            self.round += 1
            self._shut_until = time.monotonic() + PAUSE_S


class Call(NamedTuple):
    """What a caller sent to be taken."""

    body: bytes
    retry_key: str | None
    partial: bool
    """Whether events are taken that stand beside refused ones."""
    check: Callable[[list[Any]], None]
    """Called with the events before anything is taken, in a thread."""


class Taken(NamedTuple):
    """Accepted events: their ids by place in the call, their users, and the events that were refused."""

    event_ids: list[str | None]
    users: list[Any]
    refusals: list[Refusal]

    def answer(self, partial: bool) -> JSONResponse:
        """Return the answer."""
        body = {"accepted": len(self.users), "event_ids": self.event_ids}
        return JSONResponse(body | listed(self.refusals) if partial else body, 202)


class Events:
    """Checks the events of a call and appends them, in threads: the loop waits for no log and no registry."""

    def __init__(self, events_log: Log, registry: SchemaRegistry, limits: Limits) -> None:
        self._log, self._registry, self._limits = events_log, registry, limits
        self._schema_ids = SchemaIds(registry)
        self._threads = ThreadPoolExecutor(AT_ONCE, "events")
        self._gate, self._waiting = _Gate(), 0

    async def take(self, call: Call) -> Taken:
        """Return when the events are durable. Raises NotTaken, and what the call's `check` raises."""
        if self._waiting >= MOST_WAITING or not self._gate.enter():
            raise NotTaken(503, "", "no events are taken now; nothing was taken")
        self._waiting += 1
        taking = partial(self._take, call, self._gate.round)
        try:
            taken = await asyncio.get_running_loop().run_in_executor(self._threads, taking)
        except NotTaken as refused:
            if isinstance(refused.__cause__, LogUnavailable) and refused.status == 503:
                self._gate.note(False)
            raise
        finally:
            self._waiting -= 1
        self._gate.note(True)
        APPENDED.inc(len(taken.users))
        return taken

    def _take(self, call: Call, entered: int) -> Taken:
        events = _events_in(call.body)
        call.check(events)
        ids: list[str | None] = [None] * len(events)
        try:
            messages, refusals = self._messages(events, call.retry_key, ids)
            if self._gate.round != entered:
                raise LogUnavailable("it was away for calls before this one")
            self._append(messages, refusals, call.partial)
        except NotConfirmed as unsure:
            log.error("events not confirmed", error=str(unsure))
            message = "the log did not confirm in time; send the events again with these event_ids: each counts once"
            raise NotTaken(503, "", message, ids) from unsure
        except (LogUnavailable, RegistryUnavailable) as away:
            log.error("events refused", error=str(away))
            what = "log" if isinstance(away, LogUnavailable) else "schema registry"
            raise NotTaken(503, "", f"the {what} is away; nothing was taken", ids) from away
        for refusal in refusals:
            ids[refusal.index] = None
        return Taken(ids, [events[index].get("user") for index in messages], refusals)

    def _messages(
        self, events: list[Any], retry_key: str | None, ids: list[str | None]
    ) -> tuple[dict[int, Message], list[Refusal]]:
        """Return the messages of good events by place, and the refusals of the others; `ids` are filled in."""
        messages, refusals = dict[int, Message](), list[Refusal]()
        for index, event in enumerate(events):
            found = self._message(index, event, retry_key)
            if isinstance(found, Refusal):
                refusals.append(found)
            else:
                ids[index], messages[index] = found
        return messages, refusals

    def _append(self, messages: dict[int, Message], refusals: list[Refusal], partly: bool) -> None:
        """Append all messages, or in part those that the log takes; what it refuses moves to `refusals`.

        Raises NotTaken where nothing is taken, and LogUnavailable.
        """
        while True:
            if refusals and (not partly or not messages):
                raise NotTaken.of(refusals)
            try:
                self._log.append_whole(list(messages.values()))
                return
            except MessageRefused as wrong:
                places = list(messages)
                large = isinstance(wrong, MessageTooLarge)
                status, what = (413, "larger than the log takes") if large else (422, "not taken by the log")
                for place in wrong.indices:
                    del messages[places[place]]
                    refusals.append(Refusal(places[place], status, "", f"is {what}: {wrong.why}"))
                refusals.sort()

    def _message(self, index: int, event: Any, retry_key: str | None) -> tuple[str | None, Message] | Refusal:
        """Return an event's id and message, or why there is none."""
        if not isinstance(event, dict):
            return Refusal(index, 422, "", "must be an object")
        if "event_id" not in event and event.get("type") not in NO_ID:
            event = {**event, "event_id": _new_id(retry_key, index)}
        at_ms = now_ms()
        try:
            topic, record, key = event_from_json(event, at_ms, self._limits.max_future_ms)
        except InvalidEvent as wrong:
            return Refusal(index, 422, wrong.field, wrong.message)
        self._schema_ids.need(topic)
        value = encode(topic, record, self._registry)
        most = self._limits.max_message_bytes
        if len(value) > most:
            return Refusal(index, 413, "", f"its message has {len(value)} bytes; at most {most} (max_message_bytes)")
        return event.get("event_id"), Message(topic, key, value, record["ts_ms"])


def _events_in(body: bytes) -> list[Any]:
    """Return the events of a body. Raises NotTaken."""
    try:
        events = json.loads(body)
    except (ValueError, RecursionError):
        raise NotTaken(400, "body", "is not JSON") from None
    events = events if isinstance(events, list) else [events]
    if not 1 <= len(events) <= MAX_EVENTS:
        raise NotTaken(422, "body", f"must hold 1 to {MAX_EVENTS} events")
    return events


def _new_id(retry_key: str | None, index: int) -> str:
    """Return an id for an event that brings none: the same one when the call is repeated with its key."""
    if retry_key is None:
        return uuid.uuid4().hex
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{retry_key}:{index}").hex


def events_router(events: Events, guard: Guard, note_user: Callable[[Any], None]) -> APIRouter:
    """Return the route; `note_user` is called with the user of each event."""
    router = APIRouter()

    @router.post("/v1/events")
    async def take_events(
        request: Request,
        partly: Annotated[
            bool, Query(alias="partial", description="Take the good events, and name the others, instead of none")
        ] = False,
        idempotency_key: Annotated[
            str | None, Header(description="A call that is repeated with the same key counts once")
        ] = None,
    ) -> JSONResponse:
        call = Call(await request.body(), idempotency_key, partly, partial(check_events, guard, request))
        try:
            taken = await events.take(call)
        except NotTaken as refused:
            return refused.answer()
        for user in taken.users:
            note_user(user)
        return taken.answer(partly)

    return router
