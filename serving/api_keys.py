"""API keys: who may read, send events, administer. Only hashes rest on disk.

The keys are 256 random bits, so one SHA-256 is enough at rest (NIST SP 800-63B 5.1.1.2
asks for salt and stretching of secrets that people choose, not of these).
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Literal

import orjson
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Scope = Literal["read", "events", "admin"]


class ApiKey(BaseModel):
    """One key: its hash, what it may do, and how often a second."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...]
    per_second: int = Field(0, ge=0, description="Requests a second; 0: no limit")


class BadKeys(Exception):
    """The file of keys cannot be used; the message says why."""


class Refused(Exception):
    """Not allowed: an HTTP status, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a file, none when it is not there. Raises BadKeys."""
    try:
        return [ApiKey.model_validate(entry) for entry in orjson.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise BadKeys(f"{path} holds no API keys: {str(error).splitlines()[0]}") from None


def write_keys(path: Path, keys: list[ApiKey]) -> None:
    """Replace the file, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(orjson.dumps([key.model_dump() for key in keys], option=orjson.OPT_INDENT_2))
    new.replace(path)


def make_key(name: str, scopes: tuple[Scope, ...], per_second: int = 0) -> tuple[str, ApiKey]:
    """Return (the secret, shown once; what is kept of it)."""
    secret = "hr_" + secrets.token_urlsafe(32)
    return secret, ApiKey(name=name, sha256=_hash(secret), scopes=scopes, per_second=per_second)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Guard:
    """Decides who may do what; follows the file of keys."""

    def __init__(self, path: Path, required: bool) -> None:
        self._path, self._required = path, required
        self._read_at = -1.0
        self._keys: list[ApiKey] = []
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self.follow()

    def follow(self) -> None:
        """Read the file again when it has changed. Raises BadKeys."""
        changed = self._path.stat().st_mtime if self._path.exists() else 0.0
        if changed != self._read_at:
            self._keys, self._read_at = read_keys(self._path), changed

    def admit(self, secret: str, scope: Scope) -> None:
        """Raise Refused unless the key may do it. Without required keys all may read and send events."""
        if not secret:
            if scope == "admin" or self._required:
                raise Refused(401, f"needs an API key with scope {scope} (`headrace keys add`)")
            return
        key = self._find(secret)
        if key is None:
            raise Refused(401, "the API key is not known")
        if scope not in key.scopes:
            raise Refused(403, f"the API key {key.name} has no scope {scope}")
        if key.per_second and not self._limiter.hit(RateLimitItemPerSecond(key.per_second), key.name):
            raise Refused(429, f"the API key {key.name} may ask {key.per_second} times a second")

    def _find(self, secret: str) -> ApiKey | None:
        digest, found = _hash(secret), None
        for key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found
