"""What an operator declares about one PostgreSQL source."""

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator

from chassis.errors import FailedPreconditionError

MIB = 1024**2
GIB = 1024**3


class ReplicationDeclaration(BaseModel):
    """One database, the tables of it that are read, and the bounds within which they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?$", description="Name of the source, a token of its subjects.")
    dsn: SecretStr | None = Field(default=None, description="Connection string; better named by one of the next two.")
    dsn_env: str | None = Field(default=None, description="Environment variable that holds the connection string.")
    dsn_file: Path | None = Field(default=None, description="File that holds the connection string.")
    slot: str = Field(default="", pattern=r"^[a-z0-9_]{0,48}$", description="Replication slot; empty takes `strata_<name>`.")
    publication: str = Field(default="", pattern=r"^[a-z0-9_]{0,63}$", description="Publication; empty takes `strata_<name>`.")
    tables: dict[str, tuple[str, ...]] = Field(min_length=1, description="`schema.table`, each with the columns that must exist.")
    keys: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Columns by which rows are told apart, by `schema.table`; a deletion must carry them."
    )
    snapshot_page_rows: PositiveInt = Field(default=1000, description="Rows of a snapshot that are held at a time.")
    snapshot_page_bytes: PositiveInt = Field(default=8 * MIB, description="Text of a snapshot's page above which the next is shorter.")
    window_events: PositiveInt = Field(default=2048, description="Events on their way to the stream without its acknowledgement.")
    window_bytes: PositiveInt = Field(default=16 * MIB, description="Bytes on their way to the stream without its acknowledgement.")
    ack_timeout_seconds: PositiveFloat = Field(default=10.0, description="Silence of the stream after which all is sent again.")
    status_seconds: float = Field(default=1.0, gt=0, le=10, description="Time between two confirmations to PostgreSQL.")
    monitor_seconds: PositiveFloat = Field(default=5.0, description="Time between two looks at the slot.")
    heartbeat_seconds: PositiveFloat = Field(default=10.0, description="Time between two records that keep an idle slot moving.")
    watermark_seconds: PositiveFloat = Field(default=1.0, description="Least time between two events that say how far the stream is.")
    slot_lag_bound_bytes: PositiveInt = Field(default=4 * GIB, description="Backlog above which the slot is given up for a snapshot.")
    retry_seconds: PositiveFloat = Field(default=0.5, description="First wait before a lost connection is tried again; doubles.")
    longest_retry_seconds: PositiveFloat = Field(default=15.0, description="Longest wait before a lost connection is tried again.")
    blocked_retry_seconds: PositiveFloat = Field(default=30.0, description="Wait after an error that somebody must mend.")
    drain_seconds: PositiveFloat = Field(default=5.0, description="Longest wait for acknowledgements at the end.")

    @field_validator("tables", mode="before")
    @classmethod
    def _from_list(cls, tables: object) -> object:
        return dict.fromkeys(tables, ()) if isinstance(tables, list | tuple) else tables

    @field_validator("tables")
    @classmethod
    def _qualified(cls, tables: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if wrong := [name for name in tables if not all(name.partition("."))]:
            raise ValueError(f"tables {wrong} must be written as schema.table")
        return tables

    @model_validator(mode="after")
    def _one_dsn(self) -> Self:
        if sum(value is not None for value in (self.dsn, self.dsn_env, self.dsn_file)) != 1:
            raise ValueError("exactly one of dsn, dsn_env and dsn_file must be given")
        return self

    @property
    def slot_name(self) -> str:
        """Name of the replication slot."""
        return self.slot or f"strata_{self.name.replace('-', '_')}"

    @property
    def publication_name(self) -> str:
        """Name of the publication."""
        return self.publication or f"strata_{self.name.replace('-', '_')}"

    def connection_string(self) -> str:
        """Return the connection string as it is now; raise FailedPreconditionError when it cannot be read."""
        if self.dsn is not None:
            return self.dsn.get_secret_value()
        try:
            text = os.environ.get(self.dsn_env, "") if self.dsn_env else self.dsn_file.read_text() if self.dsn_file else ""
        except OSError as error:
            raise FailedPreconditionError(f"source {self.name!r}: {self.dsn_file}: {error.strerror}", code="source_dsn_missing") from error
        if not text.strip():
            where = self.dsn_env or self.dsn_file
            raise FailedPreconditionError(f"source {self.name!r}: {where} holds no connection string", code="source_dsn_missing")
        return text.strip()
