"""Changes of a real PostgreSQL as envelopes on the real stream."""

import asyncio
import os
from pathlib import Path

from nats.aio.client import Client
from source_rig import Database, Start, Stream, declaration, until


async def test_every_statement_becomes_its_envelope(shop: Database, start: Start, stream: Stream) -> None:
    """Insert, update and delete arrive in order with row, key, position and commit time; a rolled-back transaction leaves nothing."""
    await start(declaration(shop))
    shop.run("insert into shop.stock values (1, 'A', 10, 9.90, 'été')")
    shop.run("update shop.stock set quantity = 7")
    connection = shop.connect()
    connection.autocommit = False
    connection.cursor().execute("insert into shop.stock values (9, 'X', 1, 1, 'rolled back')")
    connection.rollback()
    shop.run("delete from shop.stock")

    created, updated, deleted = await stream.has(3)

    assert created["after"] == {"store_id": 1, "sku": "A", "quantity": 10, "price": "9.90", "note": "été"}
    assert [event["op"] for event in (created, updated, deleted)] == ["c", "u", "d"]
    assert updated["after"]["quantity"] == 7
    assert deleted["before"] == deleted["key"] == {"store_id": 1, "sku": "A"}
    lsns = [event["source"]["lsn"] for event in (created, updated, deleted)]
    assert lsns == sorted(set(lsns))
    assert all(event["source"]["commit_lsn"] > event["source"]["lsn"] for event in (created, updated, deleted))
    assert created["source"] | {"ts_ms": 0, "txId": 0, "lsn": 0, "commit_lsn": 0, "sequence": ""} == {
        "connector": "postgresql",
        "name": "cdc.shop",
        "ts_ms": 0,
        "snapshot": "false",
        "db": shop.name,
        "sequence": "",
        "schema": "shop",
        "table": "stock",
        "txId": 0,
        "lsn": 0,
        "commit_lsn": 0,
    }
    assert {subject for subject, _id, body in await stream.messages() if body["op"] != "m"} == {"cdc.shop.shop.stock"}


async def test_an_unchanged_large_value_is_marked_and_a_change_of_key_carries_it(shop: Database, start: Start, stream: Stream) -> None:
    """A value stored apart is marked as not sent; under a new key, where nothing could fill it in, it is read from the source."""
    await start(declaration(shop))
    body = "Thirty days with receipt. " * 400
    shop.run("insert into shop.policy (title, body) values ('Returns', %s)", body)
    shop.run("update shop.policy set title = 'Returns and refunds'")
    shop.run("update shop.policy set id = 100")
    shop.run("alter table shop.policy replica identity full")
    shop.run("update shop.policy set title = 'Refunds'")

    created, updated, deleted, recreated, whole = await stream.has(5)

    assert created["after"]["body"] == body
    assert (updated["after"]["title"], updated["after"]["body"]) == ("Returns and refunds", "__debezium_unavailable_value")
    assert (deleted["op"], deleted["key"], recreated["op"], recreated["key"]) == ("d", {"id": 1}, "c", {"id": 100})
    assert recreated["after"]["body"] == body
    assert (whole["after"]["body"], whole["before"]["title"], whole["key"]) == (body, "Returns and refunds", {"id": 100})


async def test_rows_may_be_told_apart_by_any_column_that_deletions_carry(shop: Database, start: Start, stream: Stream) -> None:
    """With the whole row as identity a mapping may take another key; whoever changes that leaves the old row deleted."""
    shop.run("alter table shop.policy replica identity full, add unique (title)")
    await start(declaration(shop, keys={"shop.policy": ["title"]}))
    shop.run("insert into shop.policy (title) values ('one')")
    shop.run("update shop.policy set title = 'two'")
    _, deleted, recreated = await stream.has(3)
    assert (deleted["op"], deleted["before"]["title"]) == ("d", "one")
    assert (recreated["op"], recreated["after"]["title"]) == ("c", "two")


async def test_a_table_may_be_emptied_and_may_grow_columns(shop: Database, start: Start, stream: Stream) -> None:
    """TRUNCATE is one event per table without rows; a new column is in the next event."""
    await start(declaration(shop))
    shop.run("insert into shop.policy (title) values ('one')")
    shop.run("alter table shop.policy add column owner text default 'retail', add column weights real[]")
    shop.run("insert into shop.policy (title, owner, weights) values ('two', 'finance', '{0.5,NaN}')")
    shop.run("truncate shop.stock, shop.policy")

    first, second, *emptied = await stream.has(4)

    assert "owner" not in first["after"]
    assert (second["after"]["owner"], second["after"]["weights"]) == ("finance", [0.5, "NaN"])
    assert sorted(event["source"]["table"] for event in emptied) == ["policy", "stock"]
    assert all((event["op"], event["before"], event["after"], event["key"]) == ("t", None, None, None) for event in emptied)


async def test_values_are_the_same_from_the_snapshot_and_from_the_stream(database: Database, start: Start, stream: Stream) -> None:
    """Every type has one JSON form, whatever the server's and the role's settings are."""
    database.run(
        """
        create type mood as enum ('sad', 'ok'); create domain price as numeric(12,4);
        create table things (id bigint primary key, flag boolean, small smallint, ratio double precision, exact numeric, cost price,
          day date, moment timestamp, instant timestamptz, span interval, mark uuid, raw bytea, doc json, feeling mood,
          grid int[][], moods mood[], instants timestamptz[], nothing text, pos point, doubled bigint generated always as (id * 2) stored);
        """
    )
    database.run(f"alter database {database.name} set datestyle = 'German'")
    database.run(f"alter database {database.name} set timezone = 'Asia/Tokyo'")
    insert = """
        insert into things values (%s, true, -3, 'NaN', 12345678901234567890.123456789, 1.5, '2026-01-31', '2026-01-31 08:00:00.5',
          '2026-01-31 08:00:00.25+09', '1 day 2 hours', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\\x00ff', '{"a": [1]}', 'ok',
          '{{1,2},{3,4}}', '{sad,ok}', '{"2026-01-31 08:00:00+09",NULL}', null, '(1,2)')
    """
    database.run(insert, 9007199254740993)
    await start(declaration(database, tables={"public.things": ["flag"]}))
    database.run(insert, 2)

    read, created = await stream.has(2)

    assert {**created["after"], "id": 0} == {**read["after"], "id": 0}
    assert read["after"] == {
        "id": 9007199254740993,
        "flag": True,
        "small": -3,
        "ratio": "NaN",
        "exact": "12345678901234567890.123456789",
        "cost": "1.5000",
        "day": "2026-01-31",
        "moment": "2026-01-31T08:00:00.5",
        "instant": "2026-01-30T23:00:00.25Z",
        "span": "P1DT2H",
        "mark": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "raw": "AP8=",
        "doc": '{"a": [1]}',
        "feeling": "ok",
        "grid": [[1, 2], [3, 4]],
        "moods": ["sad", "ok"],
        "instants": ["2026-01-30T23:00:00Z", None],
        "nothing": None,
        "pos": "(1,2)",
    }


async def test_a_row_that_the_bus_does_not_take_is_removed_and_reported(
    shop: Database, start: Start, stream: Stream, admin: Client
) -> None:
    """An event above the bus's limit becomes a deletion of its key and a dead letter; the stream goes on."""
    await start(declaration(shop))
    shop.run("insert into shop.policy (title, body) values ('large', repeat('x', 5000000))")
    shop.run("insert into shop.policy (title) values ('small')")

    oversized, small = await stream.has(2)

    assert (oversized["op"], oversized["key"], oversized["oversized"], small["after"]["title"]) == ("d", {"id": 1}, True, "small")
    letter = await admin.jetstream().get_last_msg("DEAD", "strata.v1.dead.CDC")
    assert (letter.headers or {})["strata-error-code"] == "cdc_event_too_large"


def resident_bytes() -> int:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_large_transaction_is_published_within_a_bounded_window(shop: Database, start: Start, stream: Stream) -> None:
    """Of 20,000 rows in one transaction only a window is held at a time, and the position is confirmed once, at the end."""
    running = await start(declaration(shop, window_events=200))
    before = peak = resident_bytes()
    shop.run("insert into shop.stock select 1, 'S' || g, g, g, repeat('n', 2000) from generate_series(1, 20000) g")
    while running.source.status().events_published < 20_000:
        await asyncio.sleep(0.02)
        peak = max(peak, resident_bytes())

    # The rows alone are 40 MB of text.
    assert peak - before < 20_000_000
    messages = [(message_id, body) for _subject, message_id, body in await stream.messages() if body["op"] == "c"]
    assert len({message_id for message_id, _body in messages}) == len(messages) == 20_000
    assert [body["after"]["quantity"] for _id, body in messages] == list(range(1, 20_001))
    assert len({body["source"]["commit_lsn"] for _id, body in messages}) == 1
    await until(lambda: running.source.status().confirmed_lsn > messages[-1][1]["source"]["commit_lsn"])


async def test_an_idle_slot_moves_and_says_how_far_it_is(shop: Database, start: Start, stream: Stream) -> None:
    """With its tables at rest the slot is confirmed beyond other tables' changes, and a watermark beyond them is published."""
    shop.run("create table shop.other (n int)")
    running = await start(declaration(shop))
    [(before,)] = shop.run("select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s", f"s_{shop.name}")
    shop.run("insert into shop.other select g from generate_series(1, 5000) g")
    [(written,)] = shop.run("select (pg_current_wal_lsn() - '0/0')::bigint")

    query = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s"
    await until(lambda: shop.run(query, f"s_{shop.name}")[0][0] >= written > before)
    status = await until(lambda: running.source.status() if (running.source.status().slot_lag_bytes or 1 << 30) < 100_000 else None)

    async def marked() -> bool:
        return any(
            body["op"] == "m" and body["phase"] == "watermark" and body["lsn"] >= written for _s, _i, body in await stream.messages()
        )

    await until(marked)
    assert status.state == "streaming"
    assert await stream.changes() == []


async def test_a_commit_is_soon_covered_by_a_watermark(shop: Database, start: Start, stream: Stream) -> None:
    """Who wrote a row and asks for the position behind its commit finds a watermark at or above it, after the row."""
    await start(declaration(shop, heartbeat_seconds=60))
    shop.run("insert into shop.policy (title) values ('mine')")
    [(token,)] = shop.run("select (pg_current_wal_lsn() - '0/0')::bigint")

    async def covered() -> tuple[list[int], list[int]] | None:
        bodies = [body for _subject, _id, body in await stream.messages()]
        rows = [place for place, body in enumerate(bodies) if body["op"] == "c"]
        marks = [place for place, body in enumerate(bodies) if body.get("phase") == "watermark" and body["lsn"] >= token]
        return (rows, marks) if rows and marks else None

    rows, marks = await until(covered, 30)
    assert marks[0] > rows[0]
