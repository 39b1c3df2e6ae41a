"""Tables that are dropped, made anew, taken apart or no longer published: no event says so, and the rows that come after it are right."""

from typing import Any

from source_rig import Database, Running, Start, Stream, declaration, until

from ingestor.postgres import SlotLagging, SlotLost

_PARTITIONED = """
create table moves (id int, day date, note text, primary key (id, day)) partition by range (day);
create table moves_1 partition of moves for values from ('2026-01-01') to ('2026-02-01');
create table moves_2 partition of moves for values from ('2026-02-01') to ('2026-03-01');
create publication strata_shop for table moves with (publish = 'insert');
insert into moves values (1, '2026-01-02', 'a'), (2, '2026-02-02', 'b');
"""


async def _read_again(running: Running, stream: Stream, snapshots: int = 2) -> list[Any]:
    """Return the rows of the snapshot with that number once it is complete."""
    await until(lambda: running.source.status().snapshots >= snapshots and running.source.status().state == "streaming")
    controls = await stream.controls()
    (place,) = {body["lsn"] for _phase, body in controls if body["lsn"] == controls[-1][1]["lsn"]}
    return [change["after"] for change in await stream.changes() if change["source"]["lsn"] == place]


async def test_a_table_that_is_made_anew_is_read_anew(shop: Database, start: Start, stream: Stream) -> None:
    """Dropped, it blocks the source with its name; made again, it is in the publication again and all of its rows come."""
    running = await start(declaration(shop))
    shop.run("insert into shop.policy (title) values ('old')")
    await stream.has(1)
    shop.run("drop table shop.policy")
    await until(lambda: running.source.status().error_code == "source_table_missing")
    shop.run("create table shop.policy (id int primary key, title text); insert into shop.policy values (7, 'new')")
    assert await _read_again(running, stream) == [{"id": 7, "title": "new"}]
    shop.run("insert into shop.policy values (8, 'later')")
    assert (await stream.has(3))[-1]["after"] == {"id": 8, "title": "later"}


async def test_a_blocked_source_holds_back_no_more_than_it_may(shop: Database, start: Start) -> None:
    """While somebody has to change something the slot's bound holds, and giving it up is told."""
    running = await start(declaration(shop, slot_lag_bound_bytes=2_000_000))
    shop.run("drop table shop.policy")
    await until(lambda: running.source.status().error_code == "source_table_missing")
    shop.run("create table filler as select repeat('x', 1000) from generate_series(1, 5000)")
    await until(lambda: any(isinstance(signal, SlotLagging) for signal in running.signals))
    await until(lambda: shop.run("select 1 from pg_replication_slots where slot_name = %s", f"s_{shop.name}") == [])
    assert running.source.status().error_code == "source_table_missing"


async def test_a_publication_that_changed_is_mended(shop: Database, start: Start, stream: Stream) -> None:
    """A table that left it and a publication that was made anew lose changes; every row is read again, and the loss is told."""
    running = await start(declaration(shop))
    shop.run("alter publication strata_shop drop table shop.policy; insert into shop.policy (title) values ('one')")
    assert [row["title"] for row in await _read_again(running, stream)] == ["one"]
    shop.run(
        "drop publication strata_shop; insert into shop.policy (title) values ('two'); "
        "create publication strata_shop for table shop.stock, shop.policy"
    )
    assert [row["title"] for row in await _read_again(running, stream, 3)] == ["one", "two"]
    shop.run("insert into shop.policy (title) values ('three')")
    await until(lambda: any(isinstance(signal, SlotLost) for signal in running.signals))
    assert (await stream.has(4))[-1]["after"]["title"] == "three"


async def test_partitions_come_and_go(database: Database, start: Start, stream: Stream) -> None:
    """What a partition took along or brought is read again, also where nobody read meanwhile; a publication of too little is made whole."""
    database.run(_PARTITIONED)
    settings = declaration(database, tables={"public.moves": ["note"]})
    running = await start(settings)
    database.run("update moves set note = 'c' where id = 2")
    assert [(change["op"], change["source"]["table"]) for change in await stream.has(3)] == [("r", "moves"), ("r", "moves"), ("u", "moves")]
    database.run("drop table moves_1")
    assert [row["id"] for row in await _read_again(running, stream)] == [2]
    await running.stop()
    database.run("truncate moves_2")
    running = await start(settings)
    assert (running.source.status().snapshots, (await stream.controls())[-1][1]["rows"]) == (1, {"public.moves": 0})


async def test_a_column_that_comes_back_is_read_again(shop: Database, start: Start, stream: Stream) -> None:
    """While a needed column is away deletions go on; what changed meanwhile comes whole afterwards. An unneeded one concerns nobody."""
    running = await start(declaration(shop, tables={"shop.policy": ["body"]}))
    shop.run(
        "alter table shop.policy add column extra int default 3; insert into shop.policy (title, body) values ('a', 'one'), ('b', 'two')"
    )
    shop.run("alter table shop.policy rename column body to content; delete from shop.policy where title = 'b'")
    assert [change["op"] for change in await stream.has(3)] == ["c", "c", "d"]
    await until(lambda: running.source._lacked)
    assert running.source.status().snapshots == 1
    shop.run("alter table shop.policy rename column content to body")
    assert [row["body"] for row in await _read_again(running, stream)] == ["one"]


async def test_a_key_that_changed_before_its_table_did_stops_nothing(shop: Database, start: Start, stream: Stream) -> None:
    """A value that was not sent and can no longer be asked for is left open, and what comes later is published."""
    running = await start(declaration(shop))
    shop.run("insert into shop.policy (title, body) values ('one', %s)", "Thirty days with receipt. " * 400)
    await stream.has(1)
    await running.stop()
    shop.run("update shop.policy set id = 77; alter table shop.policy rename column meta to about")
    await start(declaration(shop))
    _, deleted, created = await stream.has(3)
    assert (deleted["op"], created["key"], created["after"]["body"]) == ("d", {"id": 77}, "__debezium_unavailable_value")


async def test_a_publication_of_others_that_leaves_something_out_is_named(shop: Database, start: Start) -> None:
    """A needed column that it does not send blocks the source, with what its owner must run."""
    shop.run("create publication strata_shop for table shop.policy (id, title)")
    running = await start(declaration(shop, tables={"shop.policy": ["body"]}), streaming=False)
    await until(lambda: running.source.status().error_code == "publication_incomplete")
    assert "leaves column 'body' of 'shop.policy' out; as its owner run ALTER PUBLICATION" in running.source.status().error
