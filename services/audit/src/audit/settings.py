"""Everything an operator may change about audit."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings
from contracts.identities import NATS_MONITOR_PORT, NATS_PORT


class WitnessSettings(BaseModel):
    """One witness."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="Where it answers, such as http://127.0.0.1:9131.")
    key: str = Field(default="", description="Its verifier key; empty keeps the one it shows at the first contact.")


class Settings(ServiceSettings):
    """Read from `STRATA_AUDIT_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_AUDIT_")

    batch_size: PositiveInt = Field(default=500, le=5000, description="Most records that share one sync to disk.")
    segment_bytes: PositiveInt = Field(default=64 * 1024**2, description="Size in bytes at which a new file is begun.")
    min_free_bytes: NonNegativeInt = Field(default=256 * 1024**2, description="Free bytes on the disk below which nothing is accepted.")
    retry_seconds: PositiveFloat = Field(default=2.0, description="Longest wait between two attempts to write.")
    lease_seconds: PositiveFloat = Field(default=3.0, description="Time without renewal after which another instance writes.")
    host: str = Field(default="", description="Name of this machine in the lease; empty takes its own.")
    witnesses: tuple[WitnessSettings, ...] = Field(default=(), description="Who cosigns the log, as JSON.")
    witness_seconds: PositiveFloat = Field(default=1.0, description="Least time between two checkpoints that witnesses are sent.")
    witness_alarm_seconds: PositiveFloat = Field(default=60.0, description="Time without any cosignature after which the status warns.")
    nats_monitor_url: str = Field(default="", description="Monitoring address of the bus; empty derives it.")
    allow_unsynced_bus: bool = Field(default=False, description="Write although the bus may lose what it acknowledged when power fails.")
    retention_days: dict[str, PositiveInt] = Field(
        default_factory=dict,
        description="Days after whose month the keys of a class are destroyed, as JSON; a class is a step's name, or `default`.",
    )
    open_seconds: PositiveFloat = Field(
        default=3660.0, description="Time for which a request without an end on record may still run, when its user is erased."
    )

    @property
    def folder(self) -> Path:
        """Folder of the log: evidence and nothing else."""
        return self.state_dir / "audit"

    @property
    def run_folder(self) -> Path:
        """Folder of what the writers of one log share and can make again: lock, epoch, lookups."""
        return self.state_dir / "audit_run"

    @property
    def keys_file(self) -> Path:
        """File of the keys of what is sealed."""
        return self.state_dir / "credentials" / "audit" / "keys.db"

    @property
    def master_key_file(self) -> Path:
        """File of the key that wraps the tenants' keys."""
        return self.state_dir / "credentials" / "audit" / "master.key"

    @property
    def monitor_url(self) -> str:
        """Monitoring address of the bus: its own host, as many ports further as the defaults are."""
        bus = urlsplit(self.nats_url)
        port = (bus.port or NATS_PORT) + NATS_MONITOR_PORT - NATS_PORT
        return self.nats_monitor_url or f"http://{bus.hostname}:{port}"
