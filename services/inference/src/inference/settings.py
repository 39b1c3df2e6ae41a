"""Everything an operator may change about inference, apart from the models themselves."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `STRATA_INFERENCE_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_INFERENCE_")

    config_file: Path | None = Field(
        default=None, description="File of deployments, tiers and adapters; default deploy/config/models.yaml."
    )
    models_dir: Path | None = Field(default=None, description="Folder of exported base models; default models/ in the state folder.")
    engine_threads: NonNegativeInt = Field(default=0, description="Threads of an engine started here; 0 takes one per core.")
    connect_timeout_seconds: PositiveFloat = Field(default=2.0, description="Longest wait for a connection to an engine.")
    first_token_timeout_seconds: PositiveFloat = Field(default=30.0, description="Longest wait for the first token.")
    next_token_timeout_seconds: PositiveFloat = Field(default=25.0, description="Longest pause in a text, which comes in pieces.")
    total_timeout_seconds: PositiveFloat = Field(default=120.0, description="Longest generation; the caller's deadline may be shorter.")
    probe_seconds: PositiveFloat = Field(default=1.0, description="Pause between two looks at an engine's model list.")
    default_max_tokens: PositiveInt = Field(default=256, description="Tokens to generate where neither caller nor prompt says.")
    max_prompt_characters: PositiveInt = Field(default=200_000, description="Longest text that a prompt may render to.")

    @property
    def models_file(self) -> Path:
        """The file of deployments, tiers and adapters."""
        return self.config_file or self.repository_dir / "deploy" / "config" / "models.yaml"

    @property
    def base_models(self) -> Path:
        """Folder of exported base models."""
        return self.models_dir or self.state_dir / "models"
