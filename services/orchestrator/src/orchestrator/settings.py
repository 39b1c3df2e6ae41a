"""Everything an operator may change about the orchestrator."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `STRATA_ORCHESTRATOR_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_ORCHESTRATOR_", env_nested_delimiter="__", frozen=True, extra="forbid")

    workers: PositiveInt = Field(default=64, description="Interactive requests that run at the same time.")
    batch_workers: PositiveInt = Field(default=4, description="Batch requests that run at the same time.")
    batch_deadline_seconds: PositiveFloat = Field(default=3600.0, description="Bound of a batch request, which has no deadline of its own.")
    step_attempts: PositiveInt = Field(default=30, description="Most attempts of a step whose peer does not answer, within the deadline.")
    passage_drops: tuple[str, ...] = Field(
        default=("addressing",), description="Checks of passages whose objection leaves a passage out, as JSON; [] for none."
    )
    passage_drop_scores: dict[str, float] = Field(
        default={"injection": 0.977}, description="Checks of passages whose score leaves a passage out, with the least score; {} for none."
    )
    passage_signals: dict[str, float] = Field(
        default={"injection": 0.9}, description="Checks of passages whose score is only reported, with the least score; {} for none."
    )
    passage_check_seconds: PositiveFloat = Field(default=5.0, description="Longest wait for guardrail's verdict on passages.")
    passage_signal_seconds: PositiveFloat = Field(
        default=0.25, description="Longest wait for scores that are only reported; guardrail remembers them for the next request."
    )
    passages_unchecked: Literal["fail", "keep"] = Field(
        default="fail", description="Without that verdict: `fail` tries the step again until its time is up, `keep` goes on with a note."
    )
    record_limit_bytes: PositiveInt = Field(default=900_000, description="Largest run record that is written.")
