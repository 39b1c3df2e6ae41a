"""Which engine holds the index: a folder beside the services, or OpenSearch; nobody else needs to know."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat

from knowledge.index import Index
from knowledge.tables import LanceTables, OpenSearchTables, Tables

if TYPE_CHECKING:
    from knowledge.opensearch_client import Connection

Backend = Literal["embedded", "opensearch"]


class BackendSettings(BaseModel):
    """The engine, and how to reach it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend = Field(default="embedded", description="Engine of the indexes: `embedded` or `opensearch`.")
    url: str = Field(default="https://127.0.0.1:9200", description="URL of OpenSearch.")
    ca_file: Path | None = Field(default=None, description="Authority of OpenSearch's certificate; empty takes the one that init kept.")
    user: str | None = Field(default=None, description="User on OpenSearch; empty takes the service's own, '' asks without one.")
    password_file: Path | None = Field(default=None, description="File with the password; empty takes the one that init made.")
    search_seconds: PositiveFloat = Field(default=5.0, description="Longest wait for a search of OpenSearch.")
    write_seconds: PositiveFloat = Field(default=30.0, description="Longest wait for a bulk of writes to OpenSearch.")
    resident_chunks: NonNegativeInt = Field(
        default=250_000, description="Chunks of an embedded table up to which searches read from memory; 100,000 take some 300 MB."
    )


def create(settings: BackendSettings, state_dir: Path, service: str, encoder: str) -> Index:
    """Open the index of `encoder` for writing as `service`, making what is missing."""
    if settings.backend == "embedded":
        # The library of an engine takes a second to import; only the one in use is.
        from knowledge.lance import LanceIndex

        return LanceIndex.create(state_dir / "knowledge", encoder)
    from knowledge.opensearch import OpenSearchIndex

    return OpenSearchIndex.create(connect(settings, state_dir, service), encoder)


def open_index(settings: BackendSettings, state_dir: Path, service: str, encoder: str) -> Index:
    """Open the index of `encoder` for reading as `service`; raise IndexMissingError where there is none."""
    if settings.backend == "embedded":
        from knowledge.lance import LanceIndex

        return LanceIndex.open(state_dir / "knowledge", encoder, resident=settings.resident_chunks)
    from knowledge.opensearch import OpenSearchIndex

    return OpenSearchIndex.open(connect(settings, state_dir, service), encoder)


def tables(settings: BackendSettings, state_dir: Path, service: str) -> Tables:
    """Return every table that the engine holds, whatever encoder made it; nothing is asked of it yet."""
    return (
        LanceTables(state_dir / "knowledge") if settings.backend == "embedded" else OpenSearchTables(connect(settings, state_dir, service))
    )


def connect(settings: BackendSettings, state_dir: Path, service: str) -> "Connection":
    """Return a connection to OpenSearch as the user of `service`, with what `strata knowledge init` left under `state_dir`."""
    from knowledge.opensearch_client import Connection, OpenSearchSettings
    from knowledge.opensearch_provisioning import ca_file, password_file

    credentials = state_dir / "credentials"
    # The second is where earlier versions kept it, for all.
    kept = (ca_file(credentials, service), credentials / "opensearch-ca.pem")
    authority = settings.ca_file or next((file for file in kept if file.exists()), None)
    user = f"strata_{service}" if settings.user is None else settings.user
    password = settings.password_file or password_file(credentials, service)
    return Connection(
        OpenSearchSettings(
            url=settings.url,
            ca_file=authority,
            user=user,
            password_file=password if user else None,
            search_seconds=settings.search_seconds,
            write_seconds=settings.write_seconds,
        )
    )
