"""`POST /v1/events`: the events of a call are accepted all or none."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from prometheus_client import Counter

from flows.log.contract import Log, LogUnavailable, Message, MessageRefused, MessageTooLarge, NotConfirmed
from schemas.json_events import InvalidEvent, encode, event_from_json
from schemas.registry import RegistryUnavailable, SchemaRegistry
from schemas.validate import Limits
from serving.auth.api_keys import Guard
from serving.engine.clock import now_ms
from serving.http.middleware import check_events, error
from serving.http.schema_ids import SchemaIds

MAX_EVENTS = 1000
AT_ONCE, MOST_WAITING = 16, 256
"""Calls under way, each in a thread, and all that have not been answered."""
FAILURES, PAUSE_S = 3, 2.0
"""After so many calls in a row that found the log away, only one tries in each pause; the others need not wait."""
NO_ID = ("product", "product_gone")
APPENDED = Counter("headrace_events_appended", "Events taken over HTTP")
log = structlog.get_logger()


class NotTaken(Exception):
    """Why nothing of a call is taken."""

    def __init__(self, status: int, field: str, message: str, event_ids: list[str | None] | None = None) -> None:
        super().__init__(message)
        self.status, self.field, self.message, self.event_ids = status, field, message, event_ids

    def answer(self) -> JSONResponse:
        """Return the answer; it has the ids with which the call may be repeated."""
        if self.status != 503:
            return error(self.status, self.field, self.message)
        again = error(503, self.field, self.message, **{"Retry-After": "1"})
        if self.event_ids is None:
            return again
        body = {"error": {"field": self.field, "message": self.message}, "event_ids": self.event_ids}
        return JSONResponse(body, 503, {"Retry-After": "1"})


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


class Taken(NamedTuple):
    """Accepted events: their ids, and their users."""

    event_ids: list[str | None]
    users: list[Any]


class Events:
    """Checks the events of a call and appends them, in threads: the loop waits for no log and no registry."""

    def __init__(self, events_log: Log, registry: SchemaRegistry, limits: Limits) -> None:
        self._log, self._registry, self._limits = events_log, registry, limits
        self._schema_ids = SchemaIds(registry)
        self._threads = ThreadPoolExecutor(AT_ONCE, "events")
        self._gate, self._waiting = _Gate(), 0

    async def take(self, body: bytes, retry_key: str | None, check: Callable[[list[Any]], None]) -> Taken:
        """Return when the events are durable; `check` sees them before anything is taken, in a thread.

        Raises NotTaken, and what `check` raises.
        """
        if self._waiting >= MOST_WAITING or not self._gate.enter():
            raise NotTaken(503, "", "no events are taken now; nothing was taken")
        self._waiting += 1
        call = partial(self._take, body, retry_key, check, self._gate.round)
        try:
            taken = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except NotTaken as refused:
            if isinstance(refused.__cause__, LogUnavailable) and refused.status == 503:
                self._gate.note(False)
            raise
        finally:
            self._waiting -= 1
        self._gate.note(True)
        APPENDED.inc(len(taken.event_ids))
        return taken

    def _take(self, body: bytes, retry_key: str | None, check: Callable[[list[Any]], None], entered: int) -> Taken:
        try:
            events = json.loads(body)
        except (ValueError, RecursionError):
            raise NotTaken(400, "body", "is not JSON") from None
        events = events if isinstance(events, list) else [events]
        if not 1 <= len(events) <= MAX_EVENTS:
            raise NotTaken(422, "body", f"must hold 1 to {MAX_EVENTS} events")
        check(events)
        ids: list[str | None] = []
        try:
            messages = [self._message(index, event, retry_key, ids) for index, event in enumerate(events)]
            if self._gate.round != entered:
                raise LogUnavailable("it was away for calls before this one")
            self._log.append_whole(messages)
        except MessageTooLarge as large:
            raise NotTaken(413, f"[{large.index}]", f"is larger than the log takes: {large.why}") from large
        except MessageRefused as refused:
            raise NotTaken(422, f"[{refused.index}]", f"is not taken by the log: {refused.why}") from refused
        except NotConfirmed as unsure:
            log.error("events not confirmed", error=str(unsure))
            message = "the log did not confirm in time; send the events again with these event_ids: each counts once"
            raise NotTaken(503, "", message, ids) from unsure
        except (LogUnavailable, RegistryUnavailable) as away:
            log.error("events refused", error=str(away))
            what = "log" if isinstance(away, LogUnavailable) else "schema registry"
            raise NotTaken(503, "", f"the {what} is away; nothing was taken", ids) from away
        return Taken(ids, [event.get("user") for event in events])

    def _message(self, index: int, event: Any, retry_key: str | None, ids: list[str | None]) -> Message:
        """Return the event's message, with its id added to `ids`."""
        if not isinstance(event, dict):
            raise NotTaken(422, f"[{index}]", "must be an object")
        if "event_id" not in event and event.get("type") not in NO_ID:
            event = {**event, "event_id": _new_id(retry_key, index)}
        at_ms = now_ms()
        try:
            topic, record, key = event_from_json(event, at_ms, self._limits.max_future_ms)
        except InvalidEvent as wrong:
            raise NotTaken(422, f"[{index}].{wrong.field}", wrong.message) from None
        self._schema_ids.need(topic)
        value = encode(topic, record, self._registry)
        most = self._limits.max_message_bytes
        if len(value) > most:
            raise NotTaken(413, f"[{index}]", f"its message has {len(value)} bytes; at most {most} (max_message_bytes)")
        ids.append(event.get("event_id"))
        return Message(topic, key, value, record["ts_ms"])


def _new_id(retry_key: str | None, index: int) -> str:
    """Return an id for an event that brings none: the same one when the call is repeated with its key."""
    if retry_key is None:
        return uuid.uuid4().hex
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{retry_key}:{index}").hex


def events_router(events: Events, guard: Guard, note_user: Callable[[Any], None]) -> APIRouter:
    """Return the route; `note_user` is called with the user of each event."""
    router = APIRouter()

    @router.post("/v1/events", status_code=202)
    async def take_events(request: Request) -> JSONResponse:
        """1 to 1,000 events, all of them or none."""
        try:
            retry_key = request.headers.get("idempotency-key")
            taken = await events.take(await request.body(), retry_key, partial(check_events, guard, request))
        except NotTaken as refused:
            return refused.answer()
        for user in taken.users:
            note_user(user)
        return JSONResponse({"accepted": len(taken.event_ids), "event_ids": taken.event_ids}, 202)

    return router
