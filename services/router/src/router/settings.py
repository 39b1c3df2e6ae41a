"""Everything an operator may change about router."""

from typing import Literal

from pydantic import Field, PositiveInt, field_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings

Tier = Literal["small", "mid", "large", "reasoning"]
REQUEST_CLASSES: tuple[str, ...] = (
    "simple_lookup",
    "retrieval_heavy",
    "structured_extraction",
    "tool_workflow",
    "high_ambiguity_reasoning",
    "safety_sensitive",
    "out_of_scope",
)


class Settings(ServiceSettings):
    """Read from `STRATA_ROUTER_*`; frozen once read."""

    model_config = SettingsConfigDict(**{**ServiceSettings.model_config, "env_prefix": "STRATA_ROUTER_"})

    request_class_model: str = Field(
        default="request_class", description="Folder under models/router with the classifier of request classes."
    )
    tiers: dict[str, Tier] = Field(
        default={
            "simple_lookup": "small",
            "retrieval_heavy": "small",
            "structured_extraction": "small",
            "tool_workflow": "small",
            "high_ambiguity_reasoning": "reasoning",
            "safety_sensitive": "mid",
            "out_of_scope": "small",
        },
        description="Tier of each request class, as JSON.",
    )
    simple_intents: frozenset[str] = Field(
        default=frozenset({"administrative", "stock", "loyalty", "order"}), description="Intents that get the shortest deadline, as JSON."
    )
    threads: PositiveInt = Field(default=2, description="Threads that run classifiers.")
    max_characters: PositiveInt = Field(default=20_000, description="Characters of a message that classifiers read.")

    @field_validator("tiers")
    @classmethod
    def _every_class(cls, value: dict[str, Tier]) -> dict[str, Tier]:
        missing, unknown = set(REQUEST_CLASSES) - set(value), set(value) - set(REQUEST_CLASSES)
        if missing or unknown:
            raise ValueError(f"tiers: missing {sorted(missing)}, unknown {sorted(unknown)}; known: {list(REQUEST_CLASSES)}")
        return value
