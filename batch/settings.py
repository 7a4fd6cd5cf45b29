"""Settings of the nightly training: plain values, which `headrace.settings` reads."""

from pydantic import Field

from flows.settings import FlowSettings


class TrainingSettings(FlowSettings):
    """Settings: how an anchor is trained from the log, and when it is good enough to be published."""

    factors: int = Field(64, ge=4, le=512, description="Dimensions of the anchor")
    als_iterations: int = Field(15, ge=1, description="ALS iterations")
    als_regularization: float = Field(0.05, gt=0, description="ALS regularization")
    als_alpha: float = Field(2.0, gt=0, description="Confidence gained per unit of event weight")
    als_threads: int = Field(0, ge=0, description="Threads of the training; 0: all cores")
    anchor_tolerance: float = Field(0.02, ge=0, description="Share of recall a new anchor may lose and be published")
