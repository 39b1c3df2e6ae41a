"""Which table of which source becomes which documents, as the domains declare it in `sources.yaml`."""

import datetime as dt
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, model_validator

from contracts.subjects import CDC_PREFIX
from ingestor.catalogue import CatalogueError, Collection
from ingestor.cdc.templates import NEVER, MappingError, Template, labels_of, moment, tenant_of
from ingestor.cdc.values import Convert, converter, known_type
from knowledge.schema import Document, Kind, digest

_DAY_MS = 86_400_000
_NOT_IN_A_TOKEN = re.compile(r"[^A-Za-z0-9_-]")


def _compiles(source: str) -> str:
    Template(source)
    return source


def _refused(field: str, text: str, read: Callable[[str], object]) -> None:
    try:
        read(text)
    except MappingError as error:
        raise ValueError(f"document.{field}: {error}") from error


Source = Annotated[str, AfterValidator(_compiles)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DocumentMapping(_Strict):
    """The fields of a document, each a template over the columns of a row."""

    id: Source = Field(description="Identifier; it must name every key column.")
    title: Source = Field(default="", description="Title.")
    text: Source = Field(description="Text; a row whose text is blank is no document.")
    metadata: dict[str, Source] = Field(default_factory=dict, description="Metadata to filter by; what renders to nothing is left out.")
    labels: tuple[Source, ...] | Source | None = Field(
        default=None, description="Access labels, as a list or as one text with spaces; a row that names none has its collection's."
    )
    tenant: Source = Field(default="", description="Tenant; nothing for all.")
    expires_at: Source = Field(default="", description="ISO 8601 time after which nobody sees it; `infinity` is none.")
    effective_from: Source = Field(default="", description="ISO 8601 time before which nobody sees it.")

    @model_validator(mode="after")
    def _constants(self) -> Self:
        """Refuse now what would be wrong in every row."""
        for name, read in (("tenant", tenant_of), ("expires_at", partial(moment, field="expires_at")),
                           ("effective_from", partial(moment, field="effective_from"))):  # fmt: skip
            if (text := Template(getattr(self, name)).constant) is not None:
                _refused(name, text, read)
        for source in self.label_sources:
            if (text := Template(source).constant) is not None:
                _refused("labels", text, labels_of)
        return self

    @property
    def label_sources(self) -> tuple[str, ...]:
        """The templates of the labels, none where the collection's hold."""
        return (self.labels,) if isinstance(self.labels, str) else self.labels or ()


class TableMapping(_Strict):
    """One table."""

    key: tuple[str, ...] = Field(min_length=1, description="Columns of the primary key.")
    columns: dict[str, Annotated[str, AfterValidator(known_type)]] = Field(
        default_factory=dict, description="Types that the envelope does not tell: `decimal(2)`, `date`, `timestamp`, `json`."
    )
    collection: str = Field(min_length=1, description="Fluid collection that the documents go into.")
    document: DocumentMapping
    history_days: NonNegativeFloat | None = Field(
        default=None, description="How long a replaced state can still be replayed; absent takes the collection's."
    )

    @model_validator(mode="after")
    def _one_row_one_document(self) -> Self:
        if missing := [name for name in self.key if name not in Template(self.document.id).columns]:
            raise ValueError(
                f"document.id {self.document.id!r} must name the key column {missing[0]!r}, or two rows could share a document"
            )
        return self


class SourceMapping(_Strict):
    """One source of change events."""

    name: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?$", description="Name, the token after `cdc.` of its subjects.")
    driver: Literal["postgres", "external"] = Field(description="`postgres` is read here; `external` sends events itself.")
    dsn_env: str | None = Field(default=None, description="Environment variable with the connection string.")
    dsn_file: Path | None = Field(default=None, description="File with the connection string.")
    slot: str = Field(default="", pattern=r"^[a-z0-9_]{0,48}$", description="Replication slot.")
    publication: str = Field(default="", pattern=r"^[a-z0-9_]{0,63}$", description="Publication.")
    freshness_sla_seconds: NonNegativeFloat = Field(default=0.0, description="Promised time from commit to searchable; 0 for none.")
    decimal_handling: Literal["precise", "string", "double"] | None = Field(
        default=None, description="How decimals come; `precise` is Debezium's default, our own driver sends strings."
    )
    tables: dict[str, TableMapping] = Field(min_length=1, description="Mappings by `schema.table`.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if wrong := [name for name in self.tables if not all(name.partition("."))]:
            raise ValueError(f"tables {wrong} must be written as schema.table")
        if self.driver == "postgres" and (self.dsn_env is None) == (self.dsn_file is None):
            raise ValueError("driver 'postgres' needs one of dsn_env and dsn_file")
        if self.driver == "postgres" and self.precise:
            raise ValueError("decimal_handling 'precise' is Debezium's; driver 'postgres' sends every decimal as its text")
        return self

    @property
    def precise(self) -> bool:
        """Whether decimals come as bytes in base64."""
        return (self.decimal_handling or ("string" if self.driver == "postgres" else "precise")) == "precise"


class _File(_Strict):
    sources: tuple[SourceMapping, ...] = ()


@dataclass(frozen=True)
class Table:
    """One mapped table with everything that turns its events into documents."""

    source: SourceMapping
    name: str
    mapping: TableMapping
    collection: Collection

    @property
    def subject(self) -> str:
        """Subject of its events."""
        schema, _, table = self.name.partition(".")
        tokens = (_NOT_IN_A_TOKEN.sub("_", part) for part in (schema, table))
        return f"{CDC_PREFIX}.{self.source.name}.{'.'.join(tokens)}"

    @property
    def fingerprint(self) -> str:
        """What changes when documents would be made otherwise."""
        return digest(self.mapping.model_dump_json(), self.collection.labels, self.collection.licence, self.collection.chunker)

    @property
    def history_days(self) -> float:
        """Days that a replaced state is kept; 0 for none."""
        declared = self.mapping.history_days
        return float((self.collection.history_days or 0) if declared is None else declared)

    def kept_until_ms(self) -> int:
        """Return until when a copy is kept that is closed now, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000 + int(self.history_days * _DAY_MS)

    @property
    def sla_seconds(self) -> float:
        """Promised time from commit to searchable; 0 for none."""
        return self.source.freshness_sla_seconds or self.collection.freshness_sla_seconds or 0.0

    @cached_property
    def converters(self) -> dict[str, Convert]:
        """What decodes the columns whose types are declared."""
        return {name: converter(kind, precise=self.source.precise) for name, kind in self.mapping.columns.items()}

    @cached_property
    def json_columns(self) -> frozenset[str]:
        """Columns that are kept as decoded JSON."""
        return frozenset(name for name, kind in self.mapping.columns.items() if kind == "json")

    @cached_property
    def _templates(self) -> dict[str, Template]:
        document = self.mapping.document
        fields = {name: getattr(document, name) for name in ("id", "title", "text", "tenant", "expires_at", "effective_from")}
        fields |= {f"metadata.{name}": source for name, source in document.metadata.items()}
        return {name: Template(source) for name, source in (fields | self._labels).items()}

    @cached_property
    def _labels(self) -> dict[str, str]:
        return {f"labels[{number}]": source for number, source in enumerate(self.mapping.document.label_sources)}

    @cached_property
    def columns(self) -> frozenset[str]:
        """Columns without which no document can be made."""
        return frozenset(self.mapping.key).union(*(template.columns for template in self._templates.values()))

    def check(self, columns: Iterable[str]) -> None:
        """Raise CatalogueError when the table is known not to have a column that the mapping names."""
        if missing := sorted(self.columns - set(columns)):
            raise CatalogueError(
                f"source {self.source.name!r}, table {self.name!r}: the mapping names column {missing[0]!r}, which is missing"
            )

    def access(self, row: Mapping[str, Any]) -> tuple[str, tuple[str, ...], dt.datetime | None]:
        """Return tenant, labels and expiry for a row; raise MappingError."""
        labels = labels_of(" ".join(self._text(name, row) for name in self._labels))
        ends = moment(self._text("expires_at", row), "expires_at")
        # As a file that names no label: nobody sees more than the collection shows.
        return tenant_of(self._text("tenant", row)), labels or self.collection.labels, None if ends == NEVER else ends

    def document(self, row: Mapping[str, Any], position: int) -> Document:
        """Return the document of a row, whose text may be blank; raise MappingError."""
        tenant, labels, expires_at = self.access(row)
        named = {name: self._text(f"metadata.{name}", row) for name in self.mapping.document.metadata}
        return Document(
            collection=self.collection.name,
            kind=Kind.FLUID,
            document_id=self._text("id", row),
            title=self._text("title", row),
            text=self._text("text", row),
            effective_from=moment(self._text("effective_from", row), "effective_from"),
            expires_at=expires_at,
            tenant=tenant,
            labels=labels,
            metadata={name: value for name, value in named.items() if value},
            source=f"{self.source.name}/{self.name}",
            licence=self.collection.licence,
            position=position,
            chunker=self.collection.chunker,
        )

    def _text(self, field: str, row: Mapping[str, Any]) -> str:
        return self._templates[field].render(row, field)


def load(domains_dir: Path, collections: Mapping[str, Collection]) -> tuple[Table, ...]:
    """Return every mapped table of every domain; raise CatalogueError for a declaration that cannot be kept."""
    tables: list[Table] = []
    for file in sorted(domains_dir.glob("*/sources.yaml")):
        for source in _read(file):
            if any(table.source.name == source.name for table in tables):
                raise CatalogueError(f"{file}: source {source.name!r} is declared twice")
            tables += [_table(file, source, name, collections) for name in source.tables]
    by_subject: dict[str, str] = {}
    for table in tables:
        if (other := by_subject.setdefault(table.subject, table.name)) != table.name:
            raise CatalogueError(f"source {table.source.name!r}: tables {other!r} and {table.name!r} would share subject {table.subject!r}")
        shared = [other for other in tables if other.mapping.collection == table.mapping.collection and other is not table]
        if shared:
            raise CatalogueError(
                f"collection {table.mapping.collection!r} is fed by {table.name!r} and {shared[0].name!r}; one table feeds one"
            )
    fed = {table.mapping.collection for table in tables}
    if promised := sorted(name for name, entry in collections.items() if entry.freshness_sla_seconds is not None and name not in fed):
        raise CatalogueError(
            f"collection {promised[0]!r}: freshness_sla_seconds is promised of a table's changes, and no table of any sources.yaml feeds it"
        )
    return tuple(tables)


def _read(file: Path) -> tuple[SourceMapping, ...]:
    try:
        return _File.model_validate(yaml.safe_load(file.read_text()) or {}).sources
    except ValidationError as error:
        first = error.errors()[0]
        raise CatalogueError(f"{file}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CatalogueError(f"{file}: {' '.join(str(error).split())}") from error


def _table(file: Path, source: SourceMapping, name: str, collections: Mapping[str, Collection]) -> Table:
    mapping = source.tables[name]
    collection = collections.get(mapping.collection)
    if collection is None:
        raise CatalogueError(f"{file}: table {name!r}: unknown collection {mapping.collection!r}; known: {sorted(collections)}")
    if collection.kind is not Kind.FLUID:
        raise CatalogueError(f"{file}: table {name!r}: collection {collection.name!r} is {collection.kind.value}; rows need a fluid one")
    if collection.chunker.startswith("semantic-"):
        raise CatalogueError(
            f"{file}: table {name!r}: chunker {collection.chunker!r} needs the encoder, for which change events never wait"
        )
    return Table(source, name, mapping, collection)
