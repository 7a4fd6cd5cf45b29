"""Whether a flow folds, as its health endpoint answers: written by the thread that folds, read by any other."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

STUCK_S = 30.0
"""A flow that has not come round its loop for so long does not fold; a batch takes half a lease."""


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
