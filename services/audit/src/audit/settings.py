"""Everything an operator may change about audit."""

from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `STRATA_AUDIT_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_AUDIT_")

    batch_size: PositiveInt = Field(default=500, le=5000, description="Most records that share one sync to disk.")
    segment_bytes: PositiveInt = Field(default=64 * 1024**2, description="Size in bytes at which a new file is begun.")
    min_free_bytes: NonNegativeInt = Field(default=256 * 1024**2, description="Free bytes on the disk below which nothing is accepted.")
    retry_seconds: PositiveFloat = Field(default=2.0, description="Longest wait between two attempts to write.")

    @property
    def folder(self) -> Path:
        """Folder of the log."""
        return self.state_dir / "audit"
