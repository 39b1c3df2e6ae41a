"""What is lost or altered behind the feed's back is found and mended: index, ledger, stream, process."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingestor.cdc.feed import Feed
from ingestor.cdc.mapping import Table
from ingestor.fingerprints import Fingerprint, bucket, row_hash
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from testkit.nats import NatsServer

from .conftest import PRODUCTS, Rig, Tables, declared, envelope, held, product, texts

SUBJECT = "cdc.shop.public.products"


def _shop(tables: Tables, **changes: Any) -> tuple[Table, ...]:
    return tables({"shop": {"public.products": {**PRODUCTS, **changes}}})


def _snapshot(phase: str, lsn: int) -> bytes:
    return json.dumps({"op": "m", "phase": phase, "snapshot_id": "s", "lsn": lsn, "tables": ["public.products"]}).encode()


async def _fill(rig: Rig, feed: Feed, count: int = 6, first: int = 1) -> None:
    await rig.send(SUBJECT, *(envelope("c", n, product(n)) for n in range(first, first + count)))
    await feed.settled(300)


def _labels(index: LanceIndex) -> dict[str, str]:
    return {key: chunks[0].label_key for key, chunks in held(index, "products").items() if chunks}


class _Source:
    """A source whose rows can be read, as they are said to be."""

    def __init__(self, rows: dict[int, dict[str, Any]], position: int) -> None:
        self.table, self.position, self.settled = rows, position, 0

    @asynccontextmanager
    async def open(self, table: str, key: Sequence[str]) -> AsyncIterator["_Source"]:
        """Open the table."""
        assert (table, tuple(key)) == ("public.products", ("id",))
        yield self

    async def buckets(self) -> Mapping[int, Fingerprint]:
        """Return the sums of all rows."""
        sums: dict[int, Fingerprint] = {}
        for row in self.table.values():
            count, total = sums.get(bucket([row["id"]]), (0, 0))
            sums[bucket([row["id"]])] = (count + 1, total + row_hash(row))
        return sums

    async def rows(self, buckets: Collection[int]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the rows of some buckets."""
        for row in self.table.values():
            if bucket([row["id"]]) in buckets:
                yield row


async def test_an_index_altered_by_hand_is_mended_without_embedding(rig: Rig, tables: Tables) -> None:
    """Deleted, changed and added documents are found by their buckets or their words, and only they are written."""
    async with rig.feed(_shop(tables)) as feed:
        await _fill(rig, feed, 40)
        before = {key: [chunk.row() for chunk in chunks] for key, chunks in held(rig.index, "products").items()}
        rig.encoder.texts.clear()
        keys = sorted(before)
        chunks = held(rig.index, "products")
        rig.index.replace(Kind.FLUID, {keys[0]: [], keys[1]: []})
        rig.index.replace(Kind.FLUID, {
            keys[2]: [replace(chunks[keys[2]][0], content_hash="other", text="altered")],
            keys[3]: [replace(chunks[keys[3]][0], text="altered, hashes kept")],
            "products/999": [replace(chunks[keys[4]][0], document_key="products/999", chunk_id="products/999@#0", position=5_000_000)],
        })  # fmt: skip
        found = await feed.reconcile("shop")
        await feed.settled(300)
        assert (found.missing, found.stale, found.surplus, found.repaired) == (2, 2, 1, 5)
        # The vectors of what was deleted are gone with it; nothing else is embedded.
        assert sorted(rig.encoder.texts) == sorted(str(before[key][0]["search_text"]) for key in keys[:2])
        after = {key: [chunk.row() for chunk in chunks] for key, chunks in held(rig.index, "products").items()}
        assert {key: [{**row, "vector": 0} for row in rows] for key, rows in after.items()} == {
            key: [{**row, "vector": 0} for row in rows] for key, rows in before.items()
        }
        again = await feed.reconcile()
        assert (again.repaired, again.embedded, again.differing) == (0, 0, 0)


async def test_a_source_that_can_be_read_mends_the_ledger(rig: Rig, tables: Tables) -> None:
    """Changes that never came as events are found by reading the rows."""
    rows = {n: product(n) for n in range(1, 7)}
    source, started = _Source(rows, 1000), time.time() - 1
    async with rig.feed(_shop(tables), readers={"shop": source}) as feed:
        await _fill(rig, feed)
        del rows[1]
        rows[2] = product(2, "A lamp that changed unseen.")
        rows[8] = product(8)
        found = await feed.reconcile("shop")
        await feed.settled(300)
        assert (found.missing, found.surplus, found.stale) == (1, 1, 1)
        assert texts(rig.index, "products") == {str(n): row["body"] for n, row in rows.items()}
        # What was mended holds since it was read, what was known since it was committed.
        since = {key.partition("/")[2]: chunks[0].effective_from.timestamp() for key, chunks in held(rig.index, "products").items()}
        assert {key: at for key, at in since.items() if key in "3456"} == {str(n): (1_790_000_000_000 + n) / 1000 for n in range(3, 7)}
        assert all(started <= since[key] <= time.time() for key in "28")


async def test_a_lost_ledger_is_made_again_while_the_index_is_served(rig: Rig, tables: Tables) -> None:
    """Rows deleted meanwhile go, nothing is embedded again, and at no time are fewer documents found than the source has."""
    declared_tables = _shop(tables)
    await rig.send("cdc.shop.strata.snapshot", _snapshot("begin", 1))
    await rig.send(SUBJECT, *(envelope("r", 1, product(n)) for n in range(1, 41)))
    await rig.send("cdc.shop.strata.snapshot", _snapshot("end", 1))
    async with rig.feed(declared_tables) as feed:
        await rig.send(SUBJECT, *(envelope("u", 10 + n, product(n, f"A changed lamp {n}.")) for n in range(1, 11)))
        await feed.settled(300)
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (rig.folder / name).unlink(missing_ok=True)
    rig.encoder.texts.clear()
    await rig.send(SUBJECT, *(envelope("d", 100 + n, product(n)) for n in range(1, 6)))
    seen = [len(texts(rig.index, "products"))]
    async with rig.feed(declared_tables) as feed:
        for _ in range(6000):
            seen.append(len(texts(rig.index, "products")))
            if seen[-1] == 35 and feed.status()[0].drift.surplus:
                break
            await asyncio.sleep(0.01)
        await feed.settled(300)
        assert (await feed.reconcile()).repaired == 0
    expected = {str(n): f"A changed lamp {n}." if n < 11 else product(n)["body"] for n in range(6, 41)}
    assert texts(rig.index, "products") == expected
    assert rig.encoder.texts == []
    assert (min(seen), max(seen)) == (35, 40)
    assert rig.asked == []


async def test_a_stream_that_lost_events_asks_for_a_snapshot(rig: Rig, tables: Tables) -> None:
    """A gap before the next event, or a stream made anew, is said clearly; the snapshot that follows mends it."""
    declared_tables = _shop(tables)
    async with rig.feed(declared_tables) as feed:
        await _fill(rig, feed, 3)
    await rig.send(SUBJECT, envelope("d", 10, product(1)), envelope("c", 11, product(7)))
    await rig.admin.jetstream().purge_stream("CDC", seq=5)
    async with rig.feed(declared_tables) as feed:
        await feed.settled(300)
        assert rig.asked == [("shop", "the stream lost its messages 4 to 4")]
        assert feed.status()[0].state == "lost"
        await rig.send("cdc.shop.strata.snapshot", _snapshot("begin", 20))
        await rig.send(SUBJECT, *(envelope("r", 20, product(n)) for n in (2, 3, 7)))
        await rig.send("cdc.shop.strata.snapshot", _snapshot("end", 20))
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"2", "3", "7"}
        assert feed.status()[0].problem == ""


async def test_a_changed_mapping_makes_its_documents_anew(rig: Rig, tables: Tables) -> None:
    """After a restart titles, texts, labels and identifiers are those of the new mapping; what it did not change is not embedded."""
    async with rig.feed(_shop(tables)) as feed:
        await _fill(rig, feed, 3)
    rig.encoder.texts.clear()
    changed = {**PRODUCTS["document"], "labels": "staff", "id": "lamp-{{ id }}"}
    async with rig.feed(_shop(tables, document=changed)) as feed:
        await feed.settled(300)
        assert _labels(rig.index) == {f"products/lamp-{n}": "staff" for n in (1, 2, 3)}
        assert rig.encoder.texts == []
        assert (await feed.reconcile()).repaired == 0


async def test_a_table_that_is_mapped_later_is_read_from_the_stream(rig: Rig, tables: Tables) -> None:
    """What the stream still holds of it becomes searchable; the tables that were mapped before stay as they are."""
    async with rig.feed(_shop(tables)) as feed:
        await rig.send("cdc.shop.public.chairs", envelope("c", 1, product(1)))
        await _fill(rig, feed, 2, first=2)
        await rig.send(SUBJECT, envelope("d", 9, product(2)))
        await feed.settled(300)
    both = tables({"shop": {"public.products": PRODUCTS, "public.chairs": {**PRODUCTS, "collection": "chairs"}}})
    async with rig.feed(both) as feed:
        await feed.settled(300)
        assert (set(texts(rig.index, "chairs")), set(texts(rig.index, "products"))) == ({"1"}, {"3"})


async def test_the_bus_may_go_away_and_come_back(rig: Rig, tables: Tables, bus: NatsServer) -> None:
    """Killed and started again, nothing is lost and the feed goes on by itself."""
    async with rig.feed(_shop(tables)) as feed:
        await _fill(rig, feed, 3)
        bus.kill()
        await asyncio.sleep(0.3)
        bus.start()
        for _ in range(1200):
            if rig.admin.is_connected and rig.bus.client.is_connected:
                break
            await asyncio.sleep(0.05)
        await _fill(rig, feed, 3, first=4)
        assert len(texts(rig.index, "products")) == 6


async def _killed(folder: Path, after: float) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("feeding.py")), str(folder), env={**os.environ}
    )
    await asyncio.sleep(after)
    assert process.returncode is None
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_kills_lose_nothing_and_double_nothing(rig: Rig, tmp_path: Path) -> None:
    """Killed again and again while changes come, the index ends equal to the source, with few texts embedded twice."""
    tables = declared(tmp_path, {"shop": {"public.products": PRODUCTS}})
    rng, rows, texts_changed = random.Random(3), dict[int, dict[str, Any]](), 0

    async def change(first: int, count: int) -> int:
        written = 0
        for lsn in range(first, first + count):
            number = rng.randrange(1, 60)
            if number in rows and rng.random() < 0.2:
                await rig.send(SUBJECT, envelope("d", lsn, rows.pop(number)))
                continue
            rows[number] = product(number, f"A lamp as of {lsn}.", audience=rng.choice(["public", "staff"]))
            written += 1
            await rig.send(SUBJECT, envelope("u", lsn, rows[number]))
            await asyncio.sleep(0.004)
        return written

    place = 1
    for after in (2.2, 2.6, 3.0):
        killing = asyncio.create_task(_killed(tmp_path, after))
        texts_changed += await change(place, 120)
        place += 120
        await killing
    index = LanceIndex.create(tmp_path / "knowledge", rig.index.encoder)
    async with rig.feed(tables) as feed:
        await feed.settled(300)
        assert (await feed.reconcile()).repaired == 0
    assert texts(index, "products") == {str(n): row["body"] for n, row in rows.items()}
    assert _labels(index) == {f"products/{n}": row["audience"] for n, row in rows.items()}
    assert sorted(chunk.chunk_id for some in held(index, "products").values() for chunk in some) == sorted(f"products/{n}@#0" for n in rows)
    embedded = sqlite3.connect(tmp_path / "ledger.db").execute("SELECT embedded FROM cdc_sources").fetchone()[0]
    assert embedded <= 1.02 * texts_changed + 1
