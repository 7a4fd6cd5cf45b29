"""API keys: who may do what, and how often. Only hashes rest on disk.

The keys are 256 random bits, so one SHA-256 is enough at rest (NIST SP 800-63B 5.1.1.2
asks for salt and stretching of secrets that people choose, not of these).
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import structlog
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from serving.auth.access import ANONYMOUS, SCOPES, Scope
from serving.settings import ServingSettings
from state.settings import PREFIX, BadSettings

FORMER_SCOPES: dict[Any, tuple[Scope, ...]] = {"read": ("recommend",), "admin": SCOPES}
"""What scopes of files written before 2026-12 stand for now."""

log = structlog.get_logger()


class ApiKey(BaseModel):
    """One key: its hash, what it may do, and how many lists it may request a second."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...]
    per_second: int = Field(0, ge=0, description="Recommendations a second; 0: no limit")

    @field_validator("scopes", mode="before")
    @classmethod
    def _of_today(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(dict.fromkeys(scope for name in value for scope in FORMER_SCOPES.get(name, (name,))))


KEYS = TypeAdapter(list[ApiKey])


class BadKeys(Exception):
    """The file of keys cannot be used; the message has the reason."""


class Refused(Exception):
    """Not allowed: an HTTP status, the field that is to blame, and why.

    401: no key, or one that is not known. 403: the key lacks the scope. 429: its rate is spent, try again in a
    second. 422: one call asks for more than a second's rate, so trying again is of no use.
    """

    def __init__(self, status: int, message: str, field: str = "Authorization") -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a file, none when it is not there. Raises BadKeys."""
    try:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BadKeys(f"others may write {path}, and so make keys of their own: `chmod 600 {path}`")
        return KEYS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadKeys(f"{path} holds no API keys: {where or 'the file'}: {first['msg']}") from None
    except OSError as error:
        raise BadKeys(f"{path} holds no API keys: {error}") from None


def write_keys(path: Path, keys: list[ApiKey]) -> None:
    """Replace the file, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)  # its mode would stay
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(orjson.dumps([key.model_dump() for key in keys], option=orjson.OPT_INDENT_2))
    new.replace(path)


def make_key(name: str, scopes: tuple[Scope, ...], per_second: int = 0) -> tuple[str, ApiKey]:
    """Return (the secret, shown once; what is kept of it)."""
    secret = "hr_" + secrets.token_urlsafe(32)
    return secret, ApiKey(name=name, sha256=_hash(secret), scopes=scopes, per_second=per_second)


def secret_in(x_api_key: str, authorization: str) -> str:
    """Return the API key that a call brings in these two headers, "" for none."""
    if x_api_key:
        return x_api_key
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else authorization


def secret_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the API key a request brings, "" for none."""
    given = authorization = b""
    for name, value in headers:
        if name == b"x-api-key":
            given = value
        elif name == b"authorization":
            authorization = value
    return secret_in(given.decode("latin-1"), authorization.decode("latin-1"))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Guard:
    """Decides who may do what; follows the file of keys.

    Without a key a caller may do what `anonymous` says, and everything where `open_without_keys` holds and there has
    never been a key since the start. Once there were keys, no file that is lost, emptied or damaged opens the server.
    """

    def __init__(self, path: Path, anonymous: frozenset[Scope] = frozenset(), open_without_keys: bool = False) -> None:
        """Raises BadKeys."""
        self._path, self._anonymous = path, anonymous
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._seen = self._look()
        self._keys = read_keys(path)
        self.is_open = open_without_keys and not self._keys
        """Whether callers without a key may do everything."""

    @property
    def has_keys(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._keys)

    def follow(self) -> None:
        """Read the file again when it has changed; one that cannot be read is logged, and the keys stay."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        if seen is None:
            log.error("the file of API keys is gone; the keys stay as they were", file=str(self._path))
            return
        try:
            self._keys = read_keys(self._path)
        except BadKeys as error:
            log.error("the API keys stay as they were", error=str(error))
            return
        self.is_open = self.is_open and not self._keys
        log.info("API keys read", keys=len(self._keys))

    def admit(self, secret: str, scope: Scope | tuple[Scope, ...], cost: int = 1) -> None:
        """Raise Refused unless the caller has one of the scopes, and `cost` lists are left of the key's second.

        An empty secret is a caller without a key. A cost of 0 asks for the scope only.
        """
        scopes = (scope,) if isinstance(scope, str) else scope
        if not secret:
            if scopes and not self.is_open and self._anonymous.isdisjoint(scopes):
                raise Refused(401, f"needs an API key with scope {' or '.join(scopes)} (`headrace keys add`)")
            return
        key = self._find(secret)
        if key is None:
            raise Refused(401, "the API key is not known")
        if scopes and set(scopes).isdisjoint(key.scopes):
            raise Refused(403, f"the API key {key.name} has no scope {' or '.join(scopes)}")
        if not (cost and key.per_second):
            return
        if cost > key.per_second:
            raise Refused(422, f"asks for {cost} lists; the API key {key.name} may have {key.per_second} a second")
        if not self._limiter.hit(RateLimitItemPerSecond(key.per_second), key.name, cost=cost):
            raise Refused(429, f"the API key {key.name} may have {key.per_second} lists a second")

    def _look(self) -> tuple[int, int, int] | None:
        """Return what changes with the file, None when it is not there."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_ctime_ns

    def _find(self, secret: str) -> ApiKey | None:
        digest, found = _hash(secret), None
        for key in self._keys:  # all of them, so that the time taken reveals nothing
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def open_guard(settings: ServingSettings) -> Guard:
    """Return the guard of a server. Raises BadKeys, and BadSettings where anybody on the network could come in."""
    anonymous = ANONYMOUS if settings.allow_anonymous else frozenset[Scope]()
    local = settings.is_local and not settings.allow_anonymous
    guard = Guard(settings.keys_path, anonymous, open_without_keys=local)
    if not (guard.has_keys or anonymous or local):
        raise BadSettings(
            f"{PREFIX}HTTP_HOST {settings.http_host!r} can be reached by others, and {settings.keys_path} holds no API"
            " keys. Make some (`headrace keys add shop --preset storefront`), or let anybody ask for recommendations"
            f" and send events ({PREFIX}ALLOW_ANONYMOUS=true)"
        )
    return guard
