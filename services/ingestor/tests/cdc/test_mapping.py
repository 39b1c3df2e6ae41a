"""What a mapping may say, and what is refused before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingestor import catalogue
from ingestor.catalogue import CatalogueError
from ingestor.cdc import mapping
from ingestor.cdc.envelopes import PoisonError, parse_change
from ingestor.cdc.mapping import Table
from ingestor.cdc.promises import promised
from ingestor.cdc.templates import MappingError
from ingestor.cdc.values import converter

from .conftest import PRODUCTS, Tables, declared, product

DOMAINS = Path(__file__).parents[4] / "domains"


def _with(**changes: Any) -> dict[str, Any]:
    return {**PRODUCTS, "document": {**PRODUCTS["document"], **changes}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({**PRODUCTS, "colour": 1}, "colour: Extra inputs"),
        (_with(text="{{ body "), "unexpected end of template"),
        (_with(id="{{ name }}"), "must name the key column 'id'"),
        ({**PRODUCTS, "columns": {"price": "decimal"}}, "unknown column type 'decimal'"),
        ({**PRODUCTS, "columns": {"price": "colour"}}, "unknown column type 'colour'"),
        ({**PRODUCTS, "key": []}, "key"),
        (_with(text="{{ 1 / 0 }}"), "ZeroDivisionError"),
        (_with(expires_at="tomorrow"), "'tomorrow' is no ISO 8601 time"),
        (_with(labels=["staff", "Public"]), "label 'Public' must be lower-case"),
        (_with(tenant="a/b"), "tenant 'a/b' must be"),
    ],
)
def test_a_wrong_mapping_is_refused_at_load(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The file, the field and what is wrong with it are named."""
    with pytest.raises(CatalogueError, match=r"sources\.yaml") as error:
        declared(tmp_path, {"shop": {"public.products": table}})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"slot": "My-Slot"}, "slot: String should match"), ({"decimal_handling": "precise"}, "sends every decimal as its text")],
)
def test_a_wrong_source_is_refused_at_load(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """What the driver could not do is one line that names the file, and no error in the midst of the start."""
    with pytest.raises(CatalogueError, match=message):
        declared(tmp_path, {"shop": {"public.products": PRODUCTS}}, driver="postgres", dsn_env="DSN", **options)
    (tmp_path / "domains" / "desk" / "sources.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogueError, match=r"sources\.yaml: 'utf-8' codec"):
        mapping.load(tmp_path / "domains", catalogue.load(tmp_path / "domains"))


def test_tables_whose_events_could_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    """Two names that come to one subject would be taken for one table."""
    with pytest.raises(CatalogueError, match=r"'public\.a b' and 'public\.a_b' would share subject"):
        declared(tmp_path, {"shop": {"public.a b": PRODUCTS, "public.a_b": {**PRODUCTS, "collection": "others"}}})


def test_a_promise_that_nobody_could_keep_is_refused(tmp_path: Path) -> None:
    """How fresh a folder is cannot be judged; only a collection that a table feeds may promise it."""
    declared(tmp_path, {"shop": {"public.products": PRODUCTS}})
    file = tmp_path / "domains" / "desk" / "domain.yaml"
    entry = yaml.safe_load(file.read_text())
    entry["collections"][0]["freshness_sla_seconds"] = 5
    file.write_text(yaml.safe_dump(entry))
    (table,) = mapping.load(tmp_path / "domains", catalogue.load(tmp_path / "domains"))
    assert promised([table]) == {"shop": 5.0}
    entry["collections"].append({**entry["collections"][0], "name": "leaflets"})
    file.write_text(yaml.safe_dump(entry))
    with pytest.raises(CatalogueError, match=r"'leaflets': freshness_sla_seconds"):
        mapping.load(tmp_path / "domains", catalogue.load(tmp_path / "domains"))


def test_collections_must_be_fluid_and_fed_by_one_table(tmp_path: Path) -> None:
    """Rows have one version; two tables in one collection could not tell whose an orphan is."""
    with pytest.raises(CatalogueError, match=r"fed by .public\.a. and .public\.b."):
        _twice(tmp_path)
    declared(tmp_path, {"shop": {"public.products": PRODUCTS}})
    file = tmp_path / "domains" / "desk" / "domain.yaml"
    file.write_text(file.read_text().replace("fluid", "anchored"))
    with pytest.raises(CatalogueError, match="is anchored; rows need a fluid one"):
        mapping.load(tmp_path / "domains", catalogue.load(tmp_path / "domains"))


def _twice(folder: Path) -> None:
    declared(folder, {"shop": {"public.a": PRODUCTS, "public.b": {**PRODUCTS, "collection": "others"}}})
    file = folder / "domains" / "desk" / "sources.yaml"
    file.write_text(file.read_text().replace("collection: others", "collection: products"))
    mapping.load(folder / "domains", catalogue.load(folder / "domains"))


def test_a_table_that_is_known_to_lack_a_column_is_refused(tables: Tables) -> None:
    """Where the columns are known, the error comes at load and names the first that is missing."""
    (table,) = tables({"shop": {"public.products": PRODUCTS}})
    table.check(product(1))
    with pytest.raises(CatalogueError, match="names column 'audience'"):
        table.check(["id", "name", "body", "shelf", "ends"])


def test_templates_cannot_reach_out(tables: Tables) -> None:
    """A template has the row and nothing else."""
    (table,) = tables({"shop": {"public.products": _with(text="{{ body.__class__.__mro__ }}")}})
    with pytest.raises(MappingError, match="field 'text'"):
        table.document(product(1), 1)


def test_null_is_no_text(tables: Tables) -> None:
    """A null column renders to nothing, and metadata that renders to nothing is left out."""
    (table,) = tables({"shop": {"public.products": _with(title="{{ name }}!")}})
    document = table.document(product(1, name=None, shelf=None), 1)
    assert (document.title, document.metadata, document.labels) == ("!", {}, ("public",))


def test_a_row_that_names_no_label_has_its_collections(tmp_path: Path) -> None:
    """An empty column opens nothing: as a file without labels, the row is as open as its collection; a tenant must be one."""
    declared(tmp_path, {"shop": {"public.products": _with(tenant="{{ shelf }}")}})
    file = tmp_path / "domains" / "desk" / "domain.yaml"
    entries = yaml.safe_load(file.read_text())
    entries["collections"][0]["labels"] = ["staff"]
    file.write_text(yaml.safe_dump(entries))
    (table,) = mapping.load(tmp_path / "domains", catalogue.load(tmp_path / "domains"))
    assert table.access(product(1, audience=None, shelf=None)) == ("", ("staff",), None)
    assert table.access(product(1, shelf="acme")) == ("acme", ("public",), None)
    with pytest.raises(MappingError, match="tenant"):
        table.access(product(1, shelf="acme\x1fpublic"))


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("infinity", None), ("10000-01-01", None), ("+292278994-08-16T23:00:00Z", None), ("2030-01-01", 2030), (None, None),
        ("-infinity", 1970), ("0044-03-15 00:00:00 BC", 1970), ("-0043-03-15", 1970),
    ],
)  # fmt: skip
def test_a_time_beyond_the_calendar_is_never_or_long_ago(tables: Tables, text: str | None, year: int | None) -> None:
    """PostgreSQL's infinity as the end of a row is no expiry, what ended before any time is over."""
    (table,) = tables({"shop": {"public.products": _with(effective_from="{{ ends }}")}})
    document = table.document(product(1, ends=text), 1)
    assert (document.expires_at.year if document.expires_at else None) == year
    begins = None if text is None else 9999 if year is None else year
    assert (document.effective_from.year if document.effective_from else None) == begins
    with pytest.raises(MappingError, match="no ISO 8601 time"):
        table.document(product(1, ends="9999-12-31T23:59:59-05:00"), 1)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("timestamp", 9_223_372_036_825_200_000, "infinity"),
        ("date", -2_147_483_648, "-infinity"),
        ("decimal(2)", "A+c=", "9.99"),
        ("decimal(2)", "/2o=", "-1.50"),
        ("decimal(0)", "AJY=", "150"),
        ("date", 20454, "2026-01-01"),
        ("timestamp", 1_795_242_038_720_523, "2026-11-21T06:20:38.720523+00:00"),
        ("timestamp_ms", 0, "1970-01-01T00:00:00+00:00"),
        ("time", 3_600_000_000, "01:00:00"),
        ("json", '{"a": [1]}', {"a": [1]}),
    ],
)
def test_encoded_values_are_decoded(kind: str, value: object, expected: object) -> None:
    """Each type that JSON lacks comes out as its text, digits and sign kept."""
    assert converter(kind, precise=True)(value) == expected


def test_a_schema_in_the_envelope_tells_the_types(tables: Tables) -> None:
    """With schemas on, nothing needs to be declared; numbers of no fixed scale bring their own."""
    (table,) = tables({"shop": {"public.products": PRODUCTS}})
    decimal = {"field": "price", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
    schema = {"fields": [{"field": "after", "fields": [decimal, {"field": "made", "name": "io.debezium.time.Date"}]}]}
    row = {"id": 1, "price": "A+c=", "made": 1, "weight": {"scale": 1, "value": "Ag=="}}
    payload = {"op": "c", "after": row, "source": {"lsn": "7", "ts_ms": 1}}
    change = parse_change(table, json.dumps({"schema": schema, "payload": payload}).encode())
    assert change is not None
    assert (change.row["price"], change.row["made"], change.row["weight"], change.lsn) == ("9.99", "1970-01-02", "0.2", 7)
    change = parse_change(table, json.dumps({"schema": schema, "payload": {**payload, "after": {**row, "price": "-"}}}).encode())
    assert change is not None
    assert (change.row.get("price"), change.unreadable) == (None, {"price": "column 'price': '-' is not a decimal in base64"})
    (table,) = tables({"shop": {"public.products": {**PRODUCTS, "columns": {"id": "decimal(0)"}}}})
    with pytest.raises(PoisonError, match="column 'id': '-' is not a decimal"):
        parse_change(table, json.dumps({**payload, "after": {**row, "id": "-"}}).encode())


def test_the_shipped_example_loads_and_its_events_fit() -> None:
    """The worked example maps every one of its invented events."""
    tables: tuple[Table, ...] = mapping.load(DOMAINS, catalogue.load(DOMAINS))
    (table,) = (table for table in tables if table.collection.name == "products")
    lines = (DOMAINS / "retail" / "changes.jsonl").read_text().splitlines()
    changes = [parse_change(table, line.encode()) for line in lines]
    documents = [table.document(change.row, change.position) for change in changes if change is not None and change.op != "d"]
    assert all(document.text and document.labels for document in documents)
    assert {change.op for change in changes if change is not None} == {"c", "u", "d"}
