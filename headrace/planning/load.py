"""What is asked of an installation, and what it may take."""

from pydantic import BaseModel, ConfigDict, Field


class Load(BaseModel):
    """The size of a shop, and how much room is left above it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events_per_day: float = Field(10e6, gt=0, description="Events a day")
    peak: float = Field(4, ge=1, description="Events in the busiest minutes, as a multiple of the mean of the day")
    rps: float = Field(1000, ge=0, description="Requests a second in the busiest minutes")
    users: float = Field(1e6, ge=1, description="Users that are kept, at most")
    items: float = Field(100e3, ge=1, description="Products")
    buyers: float = Field(0.3, ge=0, le=1, description="Share of users that ever bought")
    way: str = Field("http", description="How answers are requested: http, grpc, stream or batch")
    busy: float = Field(0.6, gt=0, le=1, description="How busy a core may be in the busiest minutes")
    shard_gib: float = Field(26, gt=0, description="Rows one Redis process may hold")
    copies: int = Field(2, ge=1, description="Copies of each Redis shard, and of servers at the least")
    generations: int = Field(
        2, ge=1, description="Generations at the same time: the live one, and one that is replayed"
    )
    retention_days: float = Field(30, gt=0, description="How long the log keeps events")
    log_copies: int = Field(3, ge=1, description="Copies of each message in the log")
    log_ratio: float = Field(0.4, gt=0, le=1, description="Bytes of a message after compression, as a share")

    @property
    def mean_events_per_s(self) -> float:
        """Events a second over the day."""
        return self.events_per_day / 86_400

    @property
    def peak_events_per_s(self) -> float:
        """Events a second in the busiest minutes."""
        return self.mean_events_per_s * self.peak
