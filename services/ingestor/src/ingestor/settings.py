"""Everything an operator may change about ingestor."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings
from knowledge.backends import BackendSettings


class Settings(ServiceSettings):
    """Read from `STRATA_INGESTOR_*`; frozen once read."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="forbid", env_prefix="STRATA_INGESTOR_")

    knowledge: BackendSettings = Field(default_factory=BackendSettings, description="Engine of the indexes.")
    encoder_threads: PositiveInt = Field(default=2, description="Threads that embed.")
    batch_documents: PositiveInt = Field(default=32, description="Documents of a folder that become searchable in one commit.")
    flush_seconds: PositiveFloat = Field(default=1.0, description="Longest wait before an unpublished event is tried again.")
    longest_text_bytes: PositiveInt = Field(default=4 * 1024 * 1024, description="Largest document that is taken in.")

    @property
    def domains_dir(self) -> Path:
        """Folder of the domains, which declare the collections."""
        return self.repository_dir / "domains"

    @property
    def index_dir(self) -> Path:
        """Folder of the indexes, which retriever reads."""
        return self.state_dir / "knowledge"
