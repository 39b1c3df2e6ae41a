"""Everything an operator may change about how change events are taken in."""

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class FeedSettings(BaseModel):
    """Bounds of groups, lanes and background work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group_events: PositiveInt = Field(default=1000, description="Most events that become searchable in one commit.")
    group_seconds: PositiveFloat = Field(default=0.2, description="Least time between the beginnings of two commits.")
    idle_seconds: PositiveFloat = Field(default=0.25, description="Longest wait before the stream is looked at without being woken.")
    retry_seconds: PositiveFloat = Field(default=0.25, description="Wait before the bus or the index is tried again.")
    attempts: PositiveInt = Field(default=3, description="Attempts before an event that makes the index fail is given up.")
    embed_batch: PositiveInt = Field(default=64, description="Texts that are embedded together.")
    embed_bound: PositiveInt = Field(
        default=20_000, description="Documents without vectors that are held in memory; others wait in the index."
    )
    sweep_seconds: PositiveFloat = Field(default=5.0, description="Time between two looks for what expired.")
    compare_seconds: PositiveFloat = Field(default=60.0, description="Time between two comparisons of ledger and index.")
    verify_seconds: PositiveFloat = Field(default=10.0, description="Time between two buckets whose texts are compared word for word.")
    source_seconds: PositiveFloat = Field(default=3600.0, description="Time between two comparisons with a source that can be read.")
