"""The declared tables are others than before: renamed, taken out and back, mapped by a column that nobody sent."""

import json

from ingestor.cdc.feed import Feed

from .conftest import PRODUCTS, Rig, Tables, envelope, product, texts

_SECONDS = 300


def _mark(phase: str, lsn: int) -> bytes:
    return json.dumps({"op": "m", "phase": phase, "lsn": lsn, "tables": ["public.products"]}).encode()


async def _fill(rig: Rig, feed: Feed, *lsns: int) -> None:
    await rig.send("cdc.shop.public.products", *(envelope("c", lsn, product(n)) for n, lsn in enumerate(lsns, 1)))
    await feed.settled(_SECONDS)


async def test_a_source_may_go_on_under_another_name(rig: Rig, tables: Tables) -> None:
    """A restored server is declared anew: its places are lower, its rows are the collection's now, and nothing is embedded again."""
    async with rig.feed(tables({"shop": {"public.products": PRODUCTS}})) as feed:
        await _fill(rig, feed, 5001, 5002, 5003)
    rig.encoder.texts.clear()
    async with rig.feed(tables({"store": {"public.products": PRODUCTS}})) as feed:
        assert set(texts(rig.index, "products")) == {"1", "2", "3"}
        subject, changed = "cdc.store.public.products", product(2, "A lamp of the other server.")
        await rig.send("cdc.store.strata.snapshot", _mark("begin", 100))
        await rig.send(subject, envelope("r", 100, product(1)), envelope("r", 100, changed))
        await rig.send("cdc.store.strata.snapshot", _mark("end", 100))
        await feed.settled(_SECONDS)
        await feed.reconcile()
        assert texts(rig.index, "products") == {"1": product(1)["body"], "2": changed["body"]}
        await rig.send(subject, envelope("d", 200, product(1)))
        await feed.settled(_SECONDS)
        assert set(texts(rig.index, "products")) == {"2"}
        assert (await feed.reconcile()).repaired == 0
        assert feed.status()[0].dead == 0
    assert len(rig.encoder.texts) == 1


async def test_a_table_that_is_declared_again_misses_nothing(rig: Rig, tables: Tables) -> None:
    """What came while nobody mapped it is read from the stream."""
    both = {"shop": {"public.products": PRODUCTS, "public.chairs": {**PRODUCTS, "collection": "chairs"}}}
    async with rig.feed(tables(both)) as feed:
        await rig.send("cdc.shop.public.chairs", envelope("c", 1, product(1)))
        await _fill(rig, feed, 2)
    async with rig.feed(tables({"shop": {"public.products": PRODUCTS}})) as feed:
        await rig.send("cdc.shop.public.chairs", envelope("c", 11, product(2)), envelope("d", 12, product(1)))
        await feed.settled(_SECONDS)
    async with rig.feed(tables(both)) as feed:
        await feed.settled(_SECONDS)
        assert (set(texts(rig.index, "chairs")), set(texts(rig.index, "products"))) == ({"2"}, {"1"})


async def test_a_column_that_no_row_has_yet_asks_for_a_snapshot(rig: Rig, tables: Tables) -> None:
    """A mapping that names one later keeps the documents as they are and says that the rows must come again."""
    async with rig.feed(tables({"shop": {"public.products": PRODUCTS}})) as feed:
        await _fill(rig, feed, 1, 2)
    document = {**PRODUCTS["document"], "text": "{{ body }} By {{ maker }}."}
    async with rig.feed(tables({"shop": {"public.products": {**PRODUCTS, "document": document}}})) as feed:
        await feed.settled(_SECONDS)
        assert ([source for source, _ in rig.asked], feed.status()[0].state) == (["shop"], "lost")
        assert set(texts(rig.index, "products")) == {"1", "2"}
        await rig.send("cdc.shop.strata.snapshot", _mark("begin", 100))
        await rig.send("cdc.shop.public.products", envelope("r", 100, product(1, maker="Ada")))
        await rig.send("cdc.shop.strata.snapshot", _mark("end", 100))
        await feed.settled(_SECONDS)
        assert texts(rig.index, "products") == {"1": f"{product(1)['body']} By Ada."}
        assert feed.status()[0].state == "streaming"
