"""Whether a flow folds, as its health endpoint answers: written by the thread that folds, read by any other."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

STUCK_S = 30.0
"""A flow that has not come round its loop for so long does not fold; a batch takes half a lease."""


class Healthy(Protocol):
    """What the health endpoint shows."""

    def is_ready(self) -> bool:
        """Return whether all is folded that should be."""

    def figures(self) -> dict[str, Any]:
        """Return the answer of `/readyz`."""


@dataclass
class Health:
    """What a flow is doing; assigning to a field is all there is to updating it."""

    state: Literal["starting", "folding", "standby", "away", "stopped"] = "starting"
    """standby: other flows have all lanes; away: Redis, log or registry does not answer, or another owner wrote."""
    reason: str = ""
    """Why the state is away or stopped."""
    generation: str = ""
    lanes: list[int] = field(default_factory=list)
    lag: int | None = None
    """Messages behind the end of the log, as last counted."""
    fences: int = 0
    """Commits refused because another owner moved the lane."""
    turned_s: float = 0.0
    """Monotonic time of the last turn of the loop."""
    committed_s: float = 0.0
    """Monotonic time of the last commit, 0 before the first."""

    def is_ready(self) -> bool:
        """Return whether the flow folds what comes, or stands by for a lane."""
        return self.state in ("folding", "standby") and time.monotonic() - self.turned_s < STUCK_S

    def figures(self) -> dict[str, Any]:
        """Return the answer of `/readyz`; times are ages in seconds, None for what has not happened."""
        now = time.monotonic()
        return {
            "ready": self.is_ready(), "state": self.state, "reason": self.reason, "generation": self.generation,
            "lanes": self.lanes, "lag": self.lag, "fences": self.fences,
            "last_turn_s": round(now - self.turned_s, 1) if self.turned_s else None,
            "last_commit_s": round(now - self.committed_s, 1) if self.committed_s else None,
        }  # fmt: skip


class HealthOfParts:
    """The health of a process whose lanes are folded by several flows; the least well speaks for all."""

    def __init__(self) -> None:
        self._parts: list[Health] = []

    def add(self) -> Health:
        """Return the health of one more flow."""
        part = Health()
        self._parts.append(part)
        return part

    def is_ready(self) -> bool:
        """Return whether every flow folds what comes, or stands by for a lane."""
        return all(part.is_ready() for part in self._parts)

    def figures(self) -> dict[str, Any]:
        """Return the answer of `/readyz`: lanes and fences of all, what else there is of the least well."""
        parts = list(self._parts) or [Health(state="standby", turned_s=time.monotonic())]
        worst = min(parts, key=lambda part: (part.is_ready(), part.state == "folding"))
        lags = [part.lag for part in parts if part.lag is not None]
        return worst.figures() | {
            "ready": self.is_ready(), "lanes": sorted(lane for part in parts for lane in part.lanes),
            "fences": sum(part.fences for part in parts), "lag": max(lags, default=None),
        }  # fmt: skip
