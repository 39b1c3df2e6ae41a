"""The feed over a real bus: lanes, poison, drift, lost state, time travel and kills."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chassis.errors import DeadlineError
from chassis.messaging import decode
from contracts.subjects import APPLIED, AUDIT, FRESHNESS
from ingestor.cdc import freshness
from ingestor.cdc.feed import Feed
from ingestor.cdc.mapping import Table
from ingestor.library import Embedded
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from knowledge.visibility import Visibility

from .conftest import PRODUCTS, SETTINGS, Rig, Tables, envelope, held, product, texts

SUBJECT = "cdc.shop.public.products"
NOW = dt.datetime.now(dt.UTC)
PUBLIC = Visibility("acme", frozenset({"public"}), ("products",), NOW + dt.timedelta(days=1))


def _shop(tables: Tables, **changes: Any) -> tuple[Table, ...]:
    return tables({"shop": {"public.products": {**PRODUCTS, **changes}}})


def _snapshot(phase: str, lsn: int) -> bytes:
    return json.dumps({"op": "m", "phase": phase, "snapshot_id": "s", "lsn": lsn, "tables": ["public.products"]}).encode()


async def _fill(rig: Rig, feed: Feed, count: int = 6, first: int = 1) -> None:
    await rig.send(SUBJECT, *(envelope("c", n, product(n)) for n in range(first, first + count)))
    await feed.settled(300)


def _labels(index: LanceIndex) -> dict[str, str]:
    return {key: chunks[0].label_key for key, chunks in held(index, "products").items() if chunks}


async def test_words_find_a_change_before_its_vector_is_there(rig: Rig, tables: Tables) -> None:
    """Text, access and deletions are applied without an encoder; a change of access or metadata embeds nothing at all."""
    async with rig.feed(_shop(tables)) as feed:
        await _fill(rig, feed)
        assert len(rig.encoder.texts) == 6
        rig.encoder.texts.clear()
        await rig.send(SUBJECT, envelope("u", 20, product(1, audience="staff")), envelope("u", 21, product(2, shelf="b2")))
        await rig.send(SUBJECT, envelope("d", 22, product(3)), envelope("u", 23, product(4, "A chair, not a lamp.")))
        await feed.settled(300)
        assert rig.encoder.texts == ["Lamp 4\nA chair, not a lamp."]
        assert _labels(rig.index) == {f"products/{n}": "staff" if n == 1 else "public" for n in (1, 2, 4, 5, 6)}
        assert [hit.chunk.document_id for hit in rig.index.lexical("chair", PUBLIC, 5)] == ["4"]
        assert rig.index.without_vector(Kind.FLUID, 10) == []
        assert feed.status()[0].embedded >= 6


async def test_an_embedding_never_holds_up_the_other_lane(rig: Rig, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the encoder is stuck, changes, deletions and tightened access are found at once."""
    stuck = asyncio.Event()
    loop = asyncio.get_running_loop()
    encode = rig.library.encode

    def slow(batch: Sequence[str]) -> Embedded:
        asyncio.run_coroutine_threadsafe(stuck.wait(), loop).result(300)
        return encode(batch)

    monkeypatch.setattr(rig.library, "encode", slow)
    async with rig.feed(_shop(tables)) as feed:
        await rig.send(SUBJECT, *(envelope("c", n, product(n)) for n in range(1, 4)))
        await feed.wait_for("products", 3, 300)
        await rig.send(SUBJECT, envelope("d", 4, product(1)), envelope("u", 5, product(2, audience="staff")))
        await feed.wait_for("products", 5, 300)
        assert [hit.chunk.document_id for hit in rig.index.lexical("lamp", PUBLIC, 5)] == ["3"]
        assert len(rig.index.without_vector(Kind.FLUID, 10)) == 2
        stuck.set()
        await feed.settled(300)
        assert rig.index.without_vector(Kind.FLUID, 10) == []


async def test_vectors_of_an_encoder_that_was_exchanged_meanwhile_are_dropped(
    rig: Rig, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that was embedded while the encoder changed is embedded again; its old vector is not written."""
    encode, asked = rig.library.encode, list[str]()

    def changed(batch: Sequence[str]) -> Embedded:
        asked.extend(batch)
        embedded = encode(batch)
        return replace(embedded, encoder="another") if len(asked) == 1 else embedded

    monkeypatch.setattr(rig.library, "encode", changed)
    async with rig.feed(_shop(tables)) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1)))
        await feed.settled(300)
        assert len(asked) == 2
        assert rig.index.without_vector(Kind.FLUID, 10) == []


async def test_a_group_is_announced_once_and_poison_goes_to_the_dead_letters(rig: Rig, tables: Tables) -> None:
    """Unreadable events end on the dead stream with their error and in the audit log; those around them are applied."""
    bad = [
        b"not json", b'{"a":' * 1200 + b"1" + b"}" * 1200, b"[1]", b'{"op": "x", "source": {"lsn": 1}}', b'{"op": "c", "after": {"id": 9}}',
        envelope("c", 7, {"id": None, "name": "x"}), json.dumps({"op": "c", "after": {"id": 8}, "source": {"lsn": "soon"}}).encode(),
    ]  # fmt: skip
    async with rig.feed(_shop(tables)) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1)), *bad, envelope("c", 2, product(2)), b"")
        await rig.send("cdc.shop.transaction", b'{"status": "BEGIN"}')
        await rig.send("cdc.other.public.products", b"of nobody here")
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"1", "2"}
        js = rig.admin.jetstream()
        letters = await js.subscribe("strata.v1.dead.CDC", ordered_consumer=True)
        found = [await letters.next_msg(timeout=180) for _ in bad]
        applied = await js.subscribe(APPLIED.pattern, ordered_consumer=True)
        event = decode(APPLIED, (await applied.next_msg(timeout=180)).data)
        records = await js.subscribe(AUDIT.pattern, ordered_consumer=True)
        outcomes = [decode(AUDIT, (await records.next_msg(timeout=180)).data) for _ in range(len(bad) + 1)]
        (health,) = feed.status()
    assert [letter.data for letter in found] == bad
    assert all((letter.headers or {})["strata-error-code"] == "unreadable_event" for letter in found)
    assert "not JSON" in (found[0].headers or {})["strata-error"]
    assert (event.source, event.collections[:], health.dead) == ("shop", ["products"], len(bad))
    assert {record.outcome for record in outcomes} == {"succeeded", "rejected"}


async def test_a_group_names_its_documents_also_when_it_is_repeated(rig: Rig, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of a tenant are named as readers know them, also where the index held the group before the ledger did; no-ops are not."""
    apply, lost = rig.library.apply, list[int]()

    def failing(*arguments: Any, **options: Any) -> Any:
        applied = apply(*arguments, **options)
        if len(lost) < 2 and (applied.written or applied.removed):
            lost.append(applied.index_version)
            raise OSError(5, "killed before the ledger knew")
        return applied

    monkeypatch.setattr(rig.library, "apply", failing)
    events = await rig.admin.jetstream().subscribe(APPLIED.pattern, ordered_consumer=True)
    async with rig.feed(_shop(tables, document={**PRODUCTS["document"], "tenant": "{{ name.split()[0] | lower }}"})) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1)))
        added = decode(APPLIED, (await events.next_msg(timeout=180)).data)
        await rig.send(SUBJECT, envelope("d", 2, product(1)), envelope("d", 3, product(1)))
        removed = decode(APPLIED, (await events.next_msg(timeout=180)).data)
        await feed.settled(300)
    assert len(lost) == 2
    assert (added.upserted[:], added.upserted_count, added.deleted[:]) == (["products/1"], 1, [])
    assert (removed.upserted[:], removed.deleted[:], removed.deleted_count) == ([], ["products/1"], 1)


async def test_an_event_that_makes_its_group_fail_is_found(rig: Rig, tables: Tables) -> None:
    """Half a character passes every check and no database takes it; it alone is given up."""
    broken = envelope("c", 2, product(2)).replace(b"A lamp", b"A \\ud800 lamp")
    async with rig.feed(_shop(tables), SETTINGS.model_copy(update={"attempts": 1})) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1)), broken, envelope("c", 3, product(3)))
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"1", "3"}
        letters = await rig.admin.jetstream().subscribe("strata.v1.dead.CDC", ordered_consumer=True)
        assert (await letters.next_msg(timeout=180)).data == broken


async def test_a_row_that_the_engine_cannot_take_is_given_up(rig: Rig, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the engine takes other writes, what it fails for each time is the row's fault and goes to the dead letters."""
    apply = rig.library.apply

    def failing(upserts: Any, *arguments: Any, **options: Any) -> Any:
        if any(upsert.document.document_id == "2" for upsert in upserts):
            raise RuntimeError("lance error: LanceError(Arrow): cannot be written")
        return apply(upserts, *arguments, **options)

    monkeypatch.setattr(rig.library, "apply", failing)
    async with rig.feed(_shop(tables), SETTINGS.model_copy(update={"attempts": 2})) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1)))
        await feed.settled(300)
        await rig.send(SUBJECT, envelope("c", 2, product(2)), envelope("c", 3, product(3)))
        await feed.settled(300)
        assert (set(texts(rig.index, "products")), feed.status()[0].dead) == ({"1", "3"}, 1)


async def test_an_index_that_fails_for_all_is_waited_for(rig: Rig, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written, no event is given up; afterwards all are there."""
    apply, down = rig.library.apply, asyncio.Event()

    def failing(*arguments: Any, **options: Any) -> Any:
        if not down.is_set():
            raise RuntimeError("lance error: No space left on device")
        return apply(*arguments, **options)

    monkeypatch.setattr(rig.library, "apply", failing)
    async with rig.feed(_shop(tables), SETTINGS.model_copy(update={"attempts": 1})) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1)))
        for _ in range(1500):
            if feed.status()[0].state == "blocked":
                break
            await asyncio.sleep(0.02)
        assert feed.status()[0].state == "blocked"
        down.set()
        await feed.settled(300)
        assert (set(texts(rig.index, "products")), feed.status()[0].dead) == ({"1"}, 0)


async def test_an_outage_breaks_the_promise_and_both_ends_are_told(rig: Rig, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written and a change waits, the promise is told to be stalled, and recovered a while after all was written."""
    apply, down = rig.library.apply, asyncio.Event()

    def failing(*arguments: Any, **options: Any) -> Any:
        if not down.is_set():
            raise OSError(111, "Connection refused")
        return apply(*arguments, **options)

    monkeypatch.setattr(rig.library, "apply", failing)
    monkeypatch.setattr(freshness, "_SLOW_SECONDS", 0.5)
    shop = tables({"shop": {"public.products": PRODUCTS}}, freshness_sla_seconds=0.3)
    told = await rig.admin.jetstream().subscribe(FRESHNESS.pattern, ordered_consumer=True)
    async with rig.feed(shop) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1), ts_ms=int(time.time() * 1000)))
        stalled = decode(FRESHNESS, (await told.next_msg(timeout=180)).data)
        assert not feed.status()[0].sla_holds
        down.set()
        after = [decode(FRESHNESS, (await told.next_msg(timeout=180)).data)]
        while after[-1].reason != "recovered":
            after.append(decode(FRESHNESS, (await told.next_msg(timeout=180)).data))
        assert feed.status()[0].sla_holds
    assert (stalled.source, stalled.holds, stalled.reason) == ("shop", False, "stalled")
    assert stalled.lag_seconds > stalled.sla_seconds == pytest.approx(0.3)
    assert (after[-1].holds, {event.reason for event in after[:-1]} <= {"slow"}) == (True, True)


def test_a_change_that_took_too_long_breaks_the_promise_whatever_came_after_it() -> None:
    """A breach that was over before anybody looked is still seen, for a minute; without a promise nothing is broken."""
    now = int(time.time() * 1000)
    promised, free = freshness.Freshness("shop", 5.0), freshness.Freshness("blog", 0.0)
    for fresh in (promised, free):
        fresh.saw([now - 9_000, now])
        fresh.judge(None, "", read=True)
    assert (promised.reason, free.reason) == ("slow", "")
    promised.judge(time.time() - 60, "", read=True)
    assert promised.reason == "stalled"
    free.judge(None, "changes may be missing", read=True)
    assert (free.reason, free.detail) == ("stalled", "changes may be missing")


async def test_what_others_found_is_told_from_any_thread_until_it_is_over(rig: Rig, tables: Tables) -> None:
    """A lost slot breaks the promise until a new snapshot is complete, also when the process was restarted in between."""
    told = await rig.admin.jetstream().subscribe(FRESHNESS.pattern, ordered_consumer=True)
    async with rig.feed(_shop(tables)) as feed:
        await feed.settled(300)
        await asyncio.to_thread(feed.promises.broken, "shop", "slot_lost", "the slot is gone")
        lost = decode(FRESHNESS, (await told.next_msg(timeout=180)).data)
    async with rig.feed(_shop(tables)) as feed:
        await feed.settled(300)
        recovered = decode(FRESHNESS, (await told.next_msg(timeout=180)).data)
    assert (lost.holds, lost.reason, lost.detail) == (False, "slot_lost", "the slot is gone")
    assert (recovered.holds, recovered.reason) == (True, "recovered")


async def test_a_mapping_that_names_a_missing_column_stops_nothing(rig: Rig, tables: Tables) -> None:
    """Each event of the table becomes a dead letter that names the column; other tables go on, nothing is half indexed."""
    lacking = {**PRODUCTS, "collection": "broken", "document": {**PRODUCTS["document"], "text": "{{ body }} {{ colour }}"}}
    both = tables({"shop": {"public.products": PRODUCTS, "public.lamps": lacking}})
    async with rig.feed(both) as feed:
        await rig.send("cdc.shop.public.lamps", envelope("c", 1, product(1)))
        await rig.send(SUBJECT, envelope("c", 2, product(2)))
        await feed.settled(300)
        letters = await rig.admin.jetstream().subscribe("strata.v1.dead.CDC", ordered_consumer=True)
        letter = await letters.next_msg(timeout=180)
        assert (texts(rig.index, "broken"), set(texts(rig.index, "products"))) == ({}, {"2"})
    headers = letter.headers or {}
    assert headers["strata-error-code"] == "mapping_column_missing"
    assert "column 'colour'" in headers["strata-error"]


async def test_a_deletion_that_names_no_row_asks_for_a_snapshot(rig: Rig, tables: Tables) -> None:
    """Where the source sends another key than the mapped one, nobody knows which row is gone; the source is told to be incomplete."""
    nameless = [{"name": "Lamp 1"}, {"id": None, "name": "Lamp 2"}]
    async with rig.feed(_shop(tables)) as feed:
        await _fill(rig, feed, 2)
        events = [{"op": "d", "before": row, "after": None, "source": {"lsn": 9}} for row in nameless]
        await rig.send(SUBJECT, *(json.dumps(event).encode() for event in events))
        await feed.settled(300)
        (health,) = feed.status()
    assert (health.state, health.dead, [source for source, _ in rig.asked]) == ("lost", 2, ["shop"])


async def test_what_cannot_be_read_is_never_shown_to_more_people(rig: Rig, tables: Tables) -> None:
    """A row whose text fails stays as it was, unless its access changed or cannot be told: then it is hidden."""
    document = {**PRODUCTS["document"], "text": "{{ body.upper() }}"}
    async with rig.feed(_shop(tables, document=document)) as feed:
        await _fill(rig, feed, 3)
        await rig.send(SUBJECT, envelope("u", 10, product(1, body=5)))  # type: ignore[arg-type] # the wrong type is the point
        await rig.send(SUBJECT, envelope("u", 11, product(2, body=5, audience="staff")))  # type: ignore[arg-type]
        await rig.send(SUBJECT, envelope("u", 12, product(3, audience="No Label!")))
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"1"}
        await rig.send(SUBJECT, envelope("u", 20, product(2, audience="staff")))
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"1", "2"}


async def test_a_snapshot_removes_what_the_source_no_longer_has(rig: Rig, tables: Tables) -> None:
    """Rows that neither the snapshot nor a later change shows are gone; later ones stay."""
    async with rig.feed(_shop(tables)) as feed:
        await _fill(rig, feed, 4)
        await rig.send("cdc.shop.strata.snapshot", _snapshot("begin", 100))
        await rig.send(SUBJECT, envelope("r", 100, product(1)), envelope("r", 100, product(2)), envelope("c", 120, product(9)))
        await rig.send("cdc.shop.strata.snapshot", _snapshot("end", 100))
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"1", "2", "9"}
        assert len(rig.encoder.texts) == 5


async def test_a_watermark_waits_for_what_was_committed(rig: Rig, tables: Tables) -> None:
    """Our own driver tells what is complete; whoever asks for more waits, and is told when it does not come."""

    def change(lsn: int, before: int) -> bytes:
        return envelope("c", lsn, product(lsn), commit_lsn=lsn + 5, sequence=json.dumps([str(before), str(lsn)]))

    async with rig.feed(_shop(tables)) as feed:
        await rig.send(SUBJECT, change(10, 0), change(20, 15))
        await feed.settled(300)
        assert feed.watermarks() == {"products": 15}
        with pytest.raises(DeadlineError, match="is at 15, not yet at 25"):
            await feed.wait_for("products", 25, 0.05)
        await rig.send("cdc.shop.strata.watermark", json.dumps({"op": "m", "phase": "watermark", "lsn": 25}).encode())
        assert await feed.wait_for("products", 25, 300) == 25


async def test_a_place_in_the_past_shows_what_was_there(rig: Rig, tables: Tables) -> None:
    """Replaced states are kept and found as of their place, under today's access; a deletion takes them along."""
    async with rig.feed(_shop(tables, history_days=1)) as feed:
        await rig.send(SUBJECT, envelope("c", 10, product(1, "first words")))
        await feed.settled(300)
        await rig.send(SUBJECT, envelope("u", 20, product(1, "second words")))
        await feed.settled(300)
        await rig.send(SUBJECT, envelope("u", 30, product(1, "third words", audience="staff")))
        await feed.settled(300)

        def found(place: int | None, label: str) -> list[str]:
            positions = {} if place is None else {"products": place}
            visible = replace(PUBLIC, labels=frozenset({label}), positions=positions)
            return [hit.chunk.text for hit in rig.index.lexical("words", visible, 5)]

        seen = [found(place, "staff") for place in (9, 10, 19, 20, 30, None)]
        assert seen == [[], ["first words"], ["first words"], ["second words"], ["third words"], ["third words"]]
        assert found(10, "public") == []
        await rig.send(SUBJECT, envelope("d", 40, product(1)))
        await feed.settled(300)
        assert found(10, "staff") == []


async def test_a_closed_copy_is_kept_for_its_time_alone(rig: Rig, tables: Tables) -> None:
    """When its days are over a replaced state is dropped, also one that only a lost ledger knew of; the present stays."""

    def copies() -> int:
        return sum(entry.closed for entry in rig.index.inventory(Kind.FLUID, "products"))

    async with rig.feed(_shop(tables, history_days=1)) as feed:
        await rig.send(SUBJECT, envelope("c", 10, product(1, "first words")))
        await feed.settled(300)
        await rig.send(SUBJECT, envelope("u", 20, product(1, "second words")))
        await feed.settled(300)
        assert copies() == 1
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (rig.folder / name).unlink(missing_ok=True)
    async with rig.feed(_shop(tables, history_days=0.000001)) as feed:
        await feed.settled(300)
        await feed.reconcile()
        for _ in range(1500):
            if not copies():
                break
            await asyncio.sleep(0.05)
        assert (copies(), texts(rig.index, "products")) == (0, {"1": "second words"})


async def test_expired_documents_are_swept(rig: Rig, tables: Tables) -> None:
    """What has expired when it comes is not indexed; what expires later is removed, and can come back."""
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)).isoformat()
    async with rig.feed(_shop(tables)) as feed:
        await rig.send(SUBJECT, envelope("c", 1, product(1, ends="2020-01-01")), envelope("c", 2, product(2, ends=soon)))
        await feed.settled(300)
        for _ in range(1500):
            if not texts(rig.index, "products"):
                break
            await asyncio.sleep(0.05)
        assert texts(rig.index, "products") == {}
        await rig.send(SUBJECT, envelope("u", 3, product(2)))
        await feed.settled(300)
        assert set(texts(rig.index, "products")) == {"2"}
