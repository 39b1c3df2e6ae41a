"""Changes of a real PostgreSQL as envelopes on the real stream."""

from source_rig import Database, Start, Stream, declaration


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
