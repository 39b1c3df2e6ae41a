"""Everything an operator may change about ingestor."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings
from ingestor.cdc.declaration import FeedSettings
from ingestor.parsing.parsed import Limits
from knowledge.backends import BackendSettings


class Settings(ServiceSettings):
    """Read from `STRATA_INGESTOR_*`; frozen once read."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="forbid", env_prefix="STRATA_INGESTOR_")

    knowledge: BackendSettings = Field(default_factory=BackendSettings, description="Engine of the indexes.")
    feed: FeedSettings = Field(default_factory=FeedSettings, description="How change events are taken in.")
    encoder_threads: PositiveInt = Field(default=2, description="Threads that embed.")
    batch_documents: PositiveInt = Field(default=32, description="Documents of a folder that become searchable in one commit.")
    flush_seconds: PositiveFloat = Field(default=1.0, description="Longest wait before an unpublished event is tried again.")
    longest_text_bytes: PositiveInt = Field(default=4 * 1024 * 1024, description="Largest document that is taken in.")
    largest_file_bytes: PositiveInt = Field(default=32 * 1024 * 1024, description="Largest file of a folder or an upload.")
    unpacked_bytes: PositiveInt = Field(default=256 * 1024 * 1024, description="Largest size that a Word document may unpack to.")
    most_pages: PositiveInt = Field(default=2000, description="Most pages of a PDF.")
    parse_seconds: PositiveFloat = Field(default=30.0, description="Longest time that reading one file may take.")
    uploads_at_once: PositiveInt = Field(default=4, description="Uploads that are taken at the same time; more are told to come back.")

    way_back_days: PositiveFloat = Field(default=7.0, description="Days that the tables of the encoder before stay, to go back to.")

    @property
    def parse_limits(self) -> Limits:
        """Bounds of one file."""
        return Limits(self.largest_file_bytes, self.longest_text_bytes, self.most_pages, self.unpacked_bytes)

    @property
    def domains_dir(self) -> Path:
        """Folder of the domains, which declare the collections."""
        return self.repository_dir / "domains"

    @property
    def index_dir(self) -> Path:
        """Folder of the indexes, which retriever reads."""
        return self.state_dir / "knowledge"
