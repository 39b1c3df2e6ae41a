"""What a real Debezium Server sent, replayed: the index ends equal to the tables of the source."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingestor.cdc.applying import Applier
from ingestor.cdc.groups import Group, Message
from ingestor.cdc.mapping import Table
from ingestor.cdc.rows import Rows, StreamState
from ingestor.library import Library
from knowledge.lance import LanceIndex

from .conftest import POLICY, PRODUCTS, STOCK, Rig, Tables, envelope, held, product, recording, texts

RECEIPT = " ".join(["Thirty days with receipt."] * 400)
# What `changes.sql` leaves of `source_tables.sql`, by hand.
POLICIES = {"1": RECEIPT, "2": "Points expire after 24 months.", "3": "Gift cards do not expire.", "4": "Nine to nine."}
STOCKS = {
    "1-SKU-1": "0 pieces of SKU-1 in store 1 at 9.99. été 1",
    "1-SKU-2": "0 pieces of SKU-2 in store 1 at 19.98.",
    "1-SKU-3": "0 pieces of SKU-3 in store 1 at 29.97. été 3",
    "2-SKU-1": "10 pieces of SKU-1 in store 2 at 9.99. été 1",
    "2-SKU-7": "20 pieces of SKU-7 in store 2 at 19.98.",
    "2-SKU-3": "30 pieces of SKU-3 in store 2 at 29.97. été 3",
    "3-SKU-1": "10 pieces of SKU-1 in store 3 at 9.99. été 1",
    "3-SKU-2": "20 pieces of SKU-2 in store 3 at 19.98.",
    "4-SKU-9": "5 pieces of SKU-9 in store 4 at 1.50. new store",
}
# The last statement of the first two empties the table; the third ends before it.
RECORDINGS: list[tuple[str, str, dict[str, str], str]] = [
    ("envelope_default", "plain", {}, "precise"),
    ("cloudevents", "ce", {}, "string"),
    ("replay_after_kill", "crash", STOCKS, "string"),
]
ALL = pytest.mark.parametrize(("name", "source", "stock", "decimals"), RECORDINGS, ids=[row[0] for row in RECORDINGS])


class Silent:
    """Tells nobody."""

    def report(self, group: Group, stream: str, sequence: int) -> None:
        """Do nothing."""


class Player:
    """Applies messages without a bus."""

    def __init__(self, tables: Sequence[Table], folder: Path, library: Library) -> None:
        self.rows = Rows(folder / "ledger.db")
        self.applier = Applier(tables, self.rows, library)
        self.state = StreamState("now", 0, 0)

    def play(self, messages: Sequence[Message], group: int = 5) -> list[Group]:
        """Apply messages in groups, numbered anew."""
        numbered = [replace(message, sequence=self.state.sequence + n) for n, message in enumerate(messages, 1)]
        groups = []
        for first in range(0, len(numbered), group):
            some = numbered[first : first + group]
            groups.append(self.applier.apply(some, "CDC", self.state, Silent()))
            self.state = replace(self.state, sequence=some[-1].sequence)
        return groups


def _shop(tables: Tables, source: str, decimals: str) -> tuple[Table, ...]:
    return tables({source: {"shop.stock": STOCK, "shop.policy": POLICY}}, decimal_handling=decimals)


def _check(index: LanceIndex, stock: dict[str, str]) -> None:
    assert texts(index, "stock") == stock
    found = texts(index, "policy")
    assert {key: " ".join(text.split()) for key, text in found.items()} == POLICIES
    titles = {key: chunks[0].title for key, chunks in held(index, "policy").items()}
    assert titles == {"policy/1": "Returns and refunds", "policy/2": "Loyalty", "policy/3": "Gift cards", "policy/4": "Store hours"}
    (first, *_) = held(index, "policy")["policy/1"]
    assert (first.metadata, first.label_key) == (["audience=all", "effective=2026-01-01"], "public")


@ALL
async def test_a_recording_ends_equal_to_its_tables(
    name: str, source: str, stock: dict[str, str], decimals: str, rig: Rig, tables: Tables
) -> None:
    """Published to a real stream as it was recorded, heartbeats and transactions among it, and embedded at the end."""
    async with rig.feed(_shop(tables, source, decimals)) as feed:
        for message in recording(name):
            await rig.send(message.subject, message.data)
        await feed.settled(300)
        _check(rig.index, stock)
        (health,) = feed.status()
        assert (health.dead, health.state, health.problem) == (0, "streaming", "")
    assert rig.index.without_vector("fluid", 10) == []
    assert rig.asked == []


@ALL
@pytest.mark.parametrize("group", [1, 7, 500])
def test_a_recording_may_come_twice(
    name: str,
    source: str,
    stock: dict[str, str],
    decimals: str,
    group: int,
    tmp_path: Path,
    library: Library,
    index: LanceIndex,
    tables: Tables,
) -> None:
    """Everything again, from its beginning, moves nothing back and writes nothing."""
    player = Player(_shop(tables, source, decimals), tmp_path, library)
    player.play(recording(name), group)
    _check(index, stock)
    version = index.versions()["fluid"]
    player.play(recording(name), group)
    _check(index, stock)
    assert index.versions()["fluid"] == version


@ALL
@pytest.mark.parametrize("seed", range(4))
def test_a_recording_may_come_in_any_order(
    name: str,
    source: str,
    stock: dict[str, str],
    decimals: str,
    seed: int,
    tmp_path: Path,
    library: Library,
    index: LanceIndex,
    tables: Tables,
) -> None:
    """Places in the source decide, not arrival: unchanged columns find their value, truncation and deletions hold."""
    player = Player(_shop(tables, source, decimals), tmp_path, library)
    messages = recording(name)
    random.Random(seed).shuffle(messages)
    player.play(messages, 3)
    _check(index, stock)


def test_old_values_of_a_deletion_are_not_believed(tmp_path: Path, library: Library, tables: Tables) -> None:
    """A deletion leaves a tombstone with its place and none of the made-up values that came with it."""
    player = Player(_shop(tables, "plain", "precise"), tmp_path, library)
    player.play(recording("envelope_default"))
    row = player.rows.get("plain", "shop.stock", '[3,"SKU-3"]')
    expected: Any = (True, {}, 22240632)
    assert (row.deleted, row.content, row.lsn) == expected


def _event(op: str, lsn: int, row: dict[str, Any]) -> Message:
    values = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
    return Message(0, "cdc.shop.public.products", json.dumps({**values, "op": op, "source": {"lsn": lsn, "ts_ms": lsn}}).encode())


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0, 1, 2)])
def test_a_row_whose_other_key_changes_stays(
    order: tuple[int, ...], tmp_path: Path, library: Library, index: LanceIndex, tables: Tables
) -> None:
    """Told apart by another column than its primary key, a row comes as deleted and new at the same place, and is not gone."""
    mapped = {**PRODUCTS, "key": ["name"], "document": {**PRODUCTS["document"], "id": "{{ name }}"}}
    player = Player(tables({"shop": {"public.products": mapped}}), tmp_path, library)
    events = [_event("c", 10, product(1)), _event("d", 20, product(1)), _event("c", 20, product(1, id=2))]
    player.play([events[number] for number in order], 2)
    assert set(texts(index, "products")) == {"Lamp 1"}
    player.play([_event("d", 30, product(1))])
    assert texts(index, "products") == {}


def test_two_rows_never_share_a_document(tmp_path: Path, library: Library, index: LanceIndex, tables: Tables) -> None:
    """Where keys run together, the second row is a dead letter and takes nothing along when it goes; given up, the name is free."""
    player = Player(tables({"shop": {"public.products": {**PRODUCTS, "key": ["shelf", "name"], "document": {
        "id": "{{ shelf }}-{{ name }}", "text": "{{ body }}"}}}}), tmp_path, library)  # fmt: skip
    first, second = product(1, shelf="a", name="1-2"), product(2, shelf="a-1", name="2")
    (group,) = player.play([_event("c", 10, first), _event("c", 11, second)])
    assert [(letter.error.code, str(letter.error)[:40]) for letter in group.letters] == [
        ("mapping_ambiguous", "field 'id': 'a-1-2' is the document of r")
    ]
    (group,) = player.play([_event("u", 20, second)])
    assert len(group.letters) == 1
    player.play([_event("d", 30, second)])
    assert texts(index, "products") == {"a-1-2": "A lamp number 1 for a desk."}
    (group,) = player.play([_event("d", 40, first), _event("c", 41, second)])
    assert (texts(index, "products"), group.letters) == ({"a-1-2": "A lamp number 2 for a desk."}, [])


def test_a_column_that_cannot_be_read_opens_nothing(tmp_path: Path, library: Library, index: LanceIndex, tables: Tables) -> None:
    """What the event says of access holds though another column of it is not of its type; the letter names that column."""
    player = Player(tables({"shop": {"public.products": {**PRODUCTS, "columns": {"shelf": "json"}}}}), tmp_path, library)
    player.play([_event("c", n, product(n, shelf='"a"')) for n in (1, 2)])
    (group,) = player.play([_event("u", 11, product(1, shelf="no JSON", audience="staff")), _event("u", 12, product(2, shelf="none"))])
    assert {str(letter.error)[:38] for letter in group.letters} == {"column 'shelf': Expecting value: line "}
    assert set(texts(index, "products")) == {"2"}
    player.play([_event("u", 20, product(1, shelf="1", audience="staff"))])
    assert set(texts(index, "products")) == {"1", "2"}


def test_a_large_table_is_emptied(tmp_path: Path, library: Library, index: LanceIndex, tables: Tables) -> None:
    """One event removes more rows than fit in one commit; a row that came later stays."""
    player = Player(tables({"shop": {"public.products": PRODUCTS}}), tmp_path, library)
    subject = "cdc.shop.public.products"
    rows = [Message(0, subject, envelope("c", n, product(n))) for n in range(1, 1102)]
    truncate = json.dumps({"op": "t", "before": None, "after": None, "source": {"lsn": 5000, "ts_ms": 1}}).encode()
    player.play([*rows, Message(0, subject, envelope("c", 6000, product(9000)))], 500)
    (group,) = player.play([Message(0, subject, truncate)])
    assert len(group.applied.removed) == 1101
    assert set(texts(index, "products")) == {"9000"}


def _snapshot(*rows: tuple[str, int, str], lsn: int) -> list[Message]:
    return [Message(0, f"cdc.shop.public.{name}", envelope("r", lsn, product(n), snapshot=mark)) for name, n, mark in rows]


def test_a_snapshot_ends_for_tables_of_one_row_or_none(tmp_path: Path, library: Library, index: LanceIndex, tables: Tables) -> None:
    """A table's only row carries one mark: what was there before is gone; where no row came while some were known, that is told."""
    names = ("alone", "beside", "closing")
    player = Player(tables({"shop": {f"public.{name}": {**PRODUCTS, "collection": name} for name in names}}), tmp_path, library)
    before = [Message(0, f"cdc.shop.public.{name}", envelope("c", 10 + n, product(n))) for name in names for n in (1, 2)]
    player.play(before)
    (group,) = player.play(_snapshot(("alone", 1, "first"), ("beside", 1, "last_in_data_collection"), ("closing", 1, "last"), lsn=100))
    assert [set(texts(index, name)) for name in names] == [{"1"}] * 3
    assert (len(group.completed), group.incomplete) == (3, set())
    # A snapshot that shows nothing of two tables, of which one has rows.
    player.play([Message(0, "cdc.shop.public.beside", envelope("d", 150, product(1)))])
    (group,) = player.play(_snapshot(("closing", 1, "first_in_data_collection"), ("closing", 2, "last"), lsn=200))
    assert ([set(texts(index, name)) for name in names], group.incomplete) == ([{"1"}, set(), {"1", "2"}], {"shop"})
    # What comes again removes nothing.
    player.play([*before, *_snapshot(("alone", 1, "first"), ("beside", 1, "last_in_data_collection"), ("closing", 1, "last"), lsn=100)])
    assert [set(texts(index, name)) for name in names] == [{"1"}, set(), {"1", "2"}]


def test_the_end_of_a_snapshot_whose_beginning_is_lost_removes_nothing(
    tmp_path: Path, library: Library, index: LanceIndex, tables: Tables
) -> None:
    """After events were lost only a snapshot that is seen from its first row counts."""
    player = Player(tables({"shop": {"public.products": PRODUCTS}}), tmp_path, library)
    player.play([Message(0, "cdc.shop.public.products", envelope("c", n, product(n))) for n in (1, 2, 3)])
    player.rows.distrust_snapshots([("shop", "public.products")])
    (group,) = player.play(_snapshot(("products", 3, "last"), lsn=50))
    assert (set(texts(index, "products")), group.completed) == ({"1", "2", "3"}, set())
    player.play(_snapshot(("products", 2, "first"), ("products", 3, "last"), lsn=60))
    assert set(texts(index, "products")) == {"2", "3"}
