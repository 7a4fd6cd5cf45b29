"""Settings of the nightly training: plain values, which `headrace.settings` reads."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from flows.settings import FlowSettings


def zone_of(name: str) -> tzinfo:
    """Return a time zone of the machine's database; raises ValueError."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"this machine knows no time zone {name!r}; they are named like Europe/Berlin") from None


class TrainingSettings(FlowSettings):
    """Settings: how an anchor is trained from the log, and when it is good enough to be published."""

    factors: int = Field(64, ge=4, le=512, description="Dimensions of the anchor")
    als_iterations: int = Field(15, ge=1, description="ALS iterations")
    als_regularization: float = Field(0.05, gt=0, description="ALS regularization")
    als_alpha: float = Field(2.0, gt=0, description="Confidence gained per unit of event weight")
    als_threads: int = Field(0, ge=0, description="Threads of the training; 0: all cores")
    night_at: str = Field(
        "03:30", pattern=r"^(off|([01]\d|2[0-3]):[0-5]\d)$",
        description="When `headrace up` and `headrace night` train, as HH:MM; off: never",
    )  # fmt: skip
    night_zone: str = Field("UTC", description="Time zone of night_at, as Europe/Berlin")
    anchor_tolerance: float = Field(0.02, ge=0, description="Share of recall a new anchor may lose and be published")

    @field_validator("night_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        zone_of(name)
        return name
