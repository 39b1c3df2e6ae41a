"""The first snapshot, its hand-over to the stream, and the snapshots that follow a lost slot."""

import asyncio
import threading
from typing import Any

from source_rig import Database, Start, Stream, declaration, until

from ingestor.postgres import SlotLagging, SlotLost, SnapshotTaken


def replayed(changes: list[dict[str, Any]], *, fenced: bool) -> dict[Any, dict[str, Any]]:
    """Return the rows after all changes: in order of arrival, or each key by its highest position whatever the order."""
    rows: dict[Any, tuple[int, dict[str, Any] | None]] = {}
    for change in changes:
        key, lsn = tuple(change["key"].values()), change["source"]["lsn"]
        if not fenced or key not in rows or lsn > rows[key][0]:
            rows[key] = (lsn, change["after"])
    return {key: row for key, (_lsn, row) in rows.items() if row is not None}


async def test_a_snapshot_begins_marks_its_last_row_and_ends(shop: Database, start: Start, stream: Stream) -> None:
    """Every row comes once with op r between begin and end, below the position from which the stream goes on."""
    shop.run("insert into shop.stock select 1, 'S' || g, g, g, null from generate_series(1, 250) g")
    shop.run("insert into shop.policy (title, tags, meta, effective) values ('Returns', '{a,\"b c\",NULL}', '{\"x\": 1}', '2026-01-01')")
    running = await start(declaration(shop, snapshot_page_rows=7))

    messages = [message for message in await stream.messages() if message[2].get("phase") != "watermark"]

    begin, *rows, end = [body for _subject, _id, body in messages]
    assert (begin["phase"], begin["tables"], begin["reason"]) == ("begin", ["shop.stock", "shop.policy"], "initial")
    assert (end["phase"], end["rows"]) == ("end", {"shop.stock": 250, "shop.policy": 1})
    assert messages[0][0] == "cdc.shop.strata.snapshot"
    assert [row["op"] for row in rows] == ["r"] * 251
    assert [row["source"]["snapshot"] for row in rows] == ["true"] * 250 + ["last"]
    assert {row["source"]["lsn"] for row in rows} == {begin["lsn"]} == {end["lsn"]}
    expected = {"id": 1, "title": "Returns", "body": None, "tags": ["a", "b c", None], "meta": '{"x": 1}', "effective": "2026-01-01"}
    assert rows[-1]["after"] == expected
    assert len({message_id for _subject, message_id, _body in messages}) == 253
    [taken] = [signal for signal in running.signals if isinstance(signal, SnapshotTaken)]
    assert (taken.lsn, sum(taken.rows.values())) == (begin["lsn"], 251)


async def test_the_snapshot_hands_over_to_the_stream_while_rows_change(shop: Database, start: Start, stream: Stream) -> None:
    """Neither order of arrival nor highest position per key misses or repeats a change made while the snapshot was taken."""
    shop.run("insert into shop.stock select 1, 'S' || g, 0, 0, null from generate_series(1, 2000) g")
    stopping, rounds = threading.Event(), [0] * 4

    def write(worker: int) -> None:
        connection = shop.connect()
        connection.autocommit = False
        cursor, number = connection.cursor(), 0
        while not stopping.is_set():
            number = rounds[worker] = number + 1
            # Long, overlapping transactions: some are open while the slot is made.
            for step in range(3):
                sku = f"S{(number * 7 + step * 13) % 500 + worker * 500 + 1}"
                cursor.execute("update shop.stock set quantity = quantity + 1 where sku = %s", (sku,))
                stopping.wait(0.003)
            if number % 5 == 0:
                cursor.execute("delete from shop.stock where sku = %s", (f"S{(number * 3) % 500 + worker * 500 + 1}",))
                cursor.execute("insert into shop.stock values (2, %s, 1, 1, 'new')", (f"N{worker}-{number}",))
            connection.rollback() if number % 11 == 0 else connection.commit()

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for writer in writers:
        writer.start()
    try:
        await until(lambda: min(rounds) > 10)
        await start(declaration(shop, snapshot_page_rows=50))
        later = [number + 25 for number in rounds]
        await until(lambda: all(number > wanted for number, wanted in zip(rounds, later, strict=True)))
    finally:
        stopping.set()
        for writer in writers:
            await asyncio.to_thread(writer.join)
    shop.run("insert into shop.policy (title) values ('the end')")
    await stream.has(1, "policy")

    messages = await stream.messages()
    changes = [body for _subject, _id, body in messages if body["op"] != "m" and body["source"]["table"] == "stock"]
    source = {(store, sku): quantity for store, sku, quantity in shop.run("select store_id, sku, quantity from shop.stock")}
    for fenced in (False, True):
        assert {key: row["quantity"] for key, row in replayed(changes, fenced=fenced).items()} == source
    assert {change["op"] for change in changes} == {"r", "c", "u", "d"}
    assert len({message_id for _subject, message_id, _body in messages}) == len(messages)
    counts: dict[Any, int] = {}
    for change in changes:
        key = tuple(change["key"].values())
        if change["op"] == "u":
            # A counter that only ever goes up by one shows a gap and a repeat alike.
            assert change["after"]["quantity"] == counts[key] + 1
        counts[key] = change["after"]["quantity"] if change["after"] else 0


def _transaction(connection: Any) -> str:
    """Begin to write; return the number of the transaction."""
    cursor = connection.cursor()
    cursor.execute("select pg_current_xact_id()::xid::text")
    return str(cursor.fetchone()[0])


def _is_waited_for(shop: Database, transaction: str) -> bool:
    query = "select 1 from pg_locks where locktype = 'transactionid' and not granted and transactionid::text = %s"
    return bool(shop.run(query, transaction))


async def test_a_transaction_open_while_the_slot_is_made_stands_above_the_snapshot(shop: Database, start: Start, stream: Stream) -> None:
    """A change below the consistent point that commits above it has a higher position than the snapshot's row."""
    shop.run("insert into shop.stock values (1, 'A', 1, 1, null)")
    # The slot waits first for `oldest`, then for whatever ran when that ended; `late` begins in between and outlives both.
    oldest, middle, late = shop.connect(), shop.connect(), shop.connect()
    for connection in (oldest, middle, late):
        connection.autocommit = False
    first = _transaction(oldest)
    running = await start(declaration(shop), streaming=False)
    await until(lambda: shop.run("select 1 from pg_replication_slots where temporary and database = current_database()"))
    await until(lambda: _is_waited_for(shop, first))
    second = _transaction(middle)
    oldest.commit()
    await until(lambda: _is_waited_for(shop, second))
    late.cursor().execute("update shop.stock set quantity = 2")
    middle.commit()
    await running.streaming()
    late.commit()

    [row, change] = await stream.has(2)

    assert (row["op"], row["after"]["quantity"], change["op"], change["after"]["quantity"]) == ("r", 1, "u", 2)
    # What makes this case hard: by its own position alone the change is older than the point that the snapshot shows.
    assert change["source"]["lsn"] < row["source"]["commit_lsn"] < change["source"]["commit_lsn"]
    assert change["source"]["lsn"] > row["source"]["lsn"]


async def test_a_dropped_slot_is_signalled_and_every_row_comes_again(shop: Database, start: Start, stream: Stream) -> None:
    """A slot that vanished leads to a signal and a second snapshot, whose end position is above whatever vanished meanwhile."""
    shop.run("insert into shop.stock values (1, 'A', 1, 1, null), (1, 'B', 1, 1, null)")
    settings = declaration(shop)
    first = await start(settings)
    shop.run("update shop.stock set quantity = 5 where sku = 'B'")
    await stream.has(3)
    await first.stop()
    shop.drop_slot(settings.slot_name)
    shop.run("delete from shop.stock where sku = 'B'")

    second = await start(settings)

    assert SlotLost("shop", settings.slot_name, "slot_dropped") in second.signals
    phases = await stream.controls()
    assert [(phase, body["reason"]) for phase, body in phases if phase == "begin"] == [("begin", "initial"), ("begin", "slot_dropped")]
    changes = await stream.changes()
    highest = max(change["source"]["lsn"] for change in changes if change["key"]["sku"] == "B")
    assert phases[-1][0] == "end"
    assert phases[-1][1]["lsn"] > highest
    assert [change["key"]["sku"] for change in changes[3:]] == ["A"]
    shop.run("insert into shop.stock values (1, 'C', 1, 1, null)")
    assert (await stream.has(5))[-1]["op"] == "c"


async def test_a_slot_whose_log_the_server_removed_is_replaced(shop: Database, start: Start, stream: Stream) -> None:
    """A slot that the server invalidated to spare its disk is dropped, signalled and made again with a snapshot."""
    settings = declaration(shop)
    await (await start(settings)).stop()
    administrator = shop.connect().cursor()
    administrator.execute("alter system set max_slot_wal_keep_size = '1MB'")
    administrator.execute("select pg_reload_conf()")
    try:
        # Whoever takes the log away reads the setting when it gets to it.
        for _ in range(100):
            for _ in range(3):
                administrator.execute("select pg_logical_emit_message(false, 'filler', 'x'), pg_switch_wal()")
            administrator.execute("checkpoint")
            [(status,)] = shop.run("select wal_status from pg_replication_slots where slot_name = %s", settings.slot_name)
            if status == "lost":
                break
    finally:
        administrator.execute("alter system reset max_slot_wal_keep_size")
        administrator.execute("select pg_reload_conf()")
    shop.run("insert into shop.policy (title) values ('meanwhile')")

    running = await start(settings)

    assert status == "lost"
    assert SlotLost("shop", settings.slot_name, "slot_lost") in running.signals
    assert [(change["op"], change["after"]["title"]) for change in await stream.has(1)] == [("r", "meanwhile")]


async def test_a_slot_that_holds_back_too_much_is_given_up_while_the_bus_is_away(
    shop: Database, start: Start, stream: Stream, bus: Any
) -> None:
    """The source's log is freed although nobody can be told yet; when the bus is back, a snapshot brings everything."""
    settings = declaration(shop, slot_lag_bound_bytes=300_000)
    running = await start(settings)
    # A slot that was never within its bound is not given up, or one snapshot would follow the other.
    await until(lambda: (running.source.status().slot_lag_bytes or 1 << 30) < 300_000)
    bus.kill()
    shop.run("insert into shop.stock select 1, 'S' || g, g, g, repeat('x', 200) from generate_series(1, 3000) g")

    await until(lambda: any(isinstance(signal, SlotLagging) for signal in running.signals))
    await until(lambda: not shop.run("select 1 from pg_replication_slots where slot_name = %s", settings.slot_name))
    bus.start()

    await until(lambda: running.source.status().snapshots == 2)
    changes = [change for change in await stream.changes() if change["op"] == "r"]
    assert len(changes) == 3000
    assert SlotLost("shop", settings.slot_name, "slot_lag") in running.signals


async def test_a_table_added_to_the_declaration_comes_with_a_snapshot(shop: Database, start: Start, stream: Stream) -> None:
    """Rows that the publication did not carry before arrive when their table is declared, and its changes after them."""
    shop.run("insert into shop.policy (title) values ('old')")
    first = await start(declaration(shop, tables=["shop.stock"]))
    await first.stop()

    await start(declaration(shop))

    shop.run("insert into shop.policy (title) values ('new')")
    assert [(change["op"], change["after"]["title"]) for change in await stream.has(2, "policy")] == [("r", "old"), ("c", "new")]


async def test_a_snapshot_can_be_asked_for(shop: Database, start: Start, stream: Stream) -> None:
    """`request_snapshot` publishes every row again and goes on streaming."""
    shop.run("insert into shop.stock values (1, 'A', 1, 1, null)")
    running = await start(declaration(shop))

    running.source.request_snapshot()

    await until(lambda: running.source.status().snapshots == 2)
    await running.streaming()
    assert [phase for phase, _body in await stream.controls()] == ["begin", "end", "begin", "end"]
