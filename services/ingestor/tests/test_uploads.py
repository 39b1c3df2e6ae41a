"""Uploads and reviews over gRPC against the running service."""

import datetime as dt
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from files import bomb, pdf
from nats.aio.client import Client

from chassis import rpc
from chassis.errors import ServiceError
from chassis.messaging import connect, decode
from chassis.process import running
from contracts.subjects import REVIEW_DUE
from ingestor import catalogue
from ingestor.main import start
from ingestor.reviews import ReviewWatch, due
from ingestor.settings import Settings
from ingestor.uploads import file_name
from knowledge.lance import LanceIndex
from knowledge.schema import Kind
from strata.ingestor.v1 import knowledge_service_pb2 as pb
from strata.ingestor.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from testkit.nats import NatsServer

LINES = [(24.0, "Refund rules"), (11.0, "Refunds take five days.")]


@pytest.fixture
def settings(bus: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declare: Any) -> Settings:
    """Return settings with one collection of each kind and small bounds."""
    declare({"rules": ("anchored", []), "notices": ("fluid", [])})
    monkeypatch.setenv("STRATA_HOME", str(tmp_path))
    return Settings(largest_file_bytes=1 << 20, unpacked_bytes=4 << 20)


def _pieces(data: bytes | Iterator[bytes], name: str = "refunds.pdf", collection: str = "rules", **fields: Any) -> list[Any]:
    document = pb.Document(**{name: value for name, value in fields.items() if name != "effective_from"})
    if "effective_from" in fields:
        document.effective_from.FromJsonString(f"{fields['effective_from']}T00:00:00Z")
    header = pb.UploadHeader(collection=collection, file_name=name, document=document)
    parts = [data[first : first + 1000] for first in range(0, len(data), 1000)] if isinstance(data, bytes) else list(data)
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    pieces = [pb.UploadDocumentRequest(content=part) for part in parts]
    return [pb.UploadDocumentRequest(header=header), *pieces, pb.UploadDocumentRequest(sha256=digest)]


async def _stream(pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


def _index(settings: Settings, key: str) -> LanceIndex:
    return LanceIndex.open(settings.index_dir, key)


def _refused_uploads() -> Iterator[tuple[list[Any], str]]:
    """Yield what may not be taken in, after `refunds` of 2025, and the code it is refused with."""
    noise = random.Random(7).randbytes(3000)
    dated: dict[str, Any] = {"effective_from": "2024-01-01"}
    yield _pieces(b"%PDF-1.7\n" + noise, **dated), "unreadable_document"
    yield _pieces((bytes(1 << 18) for _ in range(800)), "huge.txt", **dated), "document_too_large"
    yield _pieces(noise, "binary.md", **dated), "binary_as_text"
    yield _pieces(b"No date.", "undated.md"), "missing_effective_date"
    yield _pieces(b"Another text.", "refunds.md", effective_from="2025-01-01"), "version_conflict"
    yield _pieces(b"Another text.", "refunds.md", effective_from="2025-01-01", version="b"), "version_conflict"
    yield _pieces(bomb(5 << 20), "bomb.docx", **dated), "document_too_large"
    yield _pieces(b"Text.", "../../etc/passwd.md", **dated), "invalid_request"
    yield _pieces(b"Text.", "x.md", id="../x", **dated), "invalid_request"
    yield _pieces(b"Text.", "x.md", "nowhere", **dated), "not_found"
    yield _pieces(b"Text.", "x.md", text="Text.", **dated), "invalid_request"
    yield _pieces(b"", "x.md", **dated)[1:], "invalid_request"
    yield [pb.UploadDocumentRequest(content=b"x")], "invalid_request"
    yield _pieces(b"Cut off.", "x.md", **dated)[:-1], "invalid_request"
    yield [*_pieces(b"Other.", "x.md", **dated)[:-1], pb.UploadDocumentRequest(sha256="0" * 64)], "invalid_request"


async def test_uploads_become_versions_and_bad_ones_leave_nothing(settings: Settings, admin: Client, real_encoder: Any) -> None:
    """A PDF in pieces is searchable when the call returns; each bad file has its code, and nothing of it is in the index."""
    async with running("ingestor", settings, start), rpc.channel(settings, "gateway", "ingestor") as channel:
        stub = KnowledgeServiceStub(channel)

        async def upload(pieces: Any) -> pb.UploadDocumentResponse:
            return await rpc.send(stub.UploadDocument, _stream(pieces), timeout=180)

        async def code(pieces: Any) -> str:
            with pytest.raises(ServiceError) as caught:
                await upload(pieces)
            return caught.value.code

        first = await upload(_pieces(pdf(LINES), effective_from="2024-01-01", metadata={"region": "eu"}))
        assert (first.changed, first.document_id, first.version, first.title, first.format) == (
            True, "refunds", "2024-01-01", "Refund rules", "pdf",
        )  # fmt: skip
        second = await upload(_pieces(pdf([*LINES, (11.0, "More.")]), effective_from="2025-01-01", tenant=""))
        assert second.supersedes == "2024-01-01"
        assert not (await upload(_pieces(pdf([*LINES, (11.0, "More.")]), effective_from="2025-01-01"))).changed
        markdown = b"---\nid: gifts\ntenant: rival\neffective_from: 2024-06-01\nreview_date: 2025-01-01\n---\n# Gifts\n\nNo exchange."
        gifts = await upload(_pieces(markdown, "page.md", tenant="acme"))
        assert (gifts.document_id, gifts.title) == ("gifts", "Gifts")

        for pieces, refused in _refused_uploads():
            assert await code(pieces) == refused
        index = _index(settings, real_encoder.identity.key())
        found = index.documents(Kind.ANCHORED, ["rules/refunds", "acme:rules/gifts", "rival:rules/gifts"])
        assert {key: {chunk.version for chunk in chunks} for key, chunks in found.items()} == {
            "rules/refunds": {"2024-01-01", "2025-01-01"},
            "acme:rules/gifts": {"2024-06-01"},
            "rival:rules/gifts": set(),
        }
        assert index.holdings()["rules"].documents == 2

        due_now = await rpc.call(stub.ListDueReviews, pb.ListDueReviewsRequest(on="2030-01-02"), timeout=180)
        with pytest.raises(ServiceError, match="must be a date"):
            await rpc.call(stub.ListDueReviews, pb.ListDueReviewsRequest(on="soon"), timeout=180)
    assert [(entry.collection, entry.document_id, entry.tenant, entry.days_over) for entry in due_now.due] == [
        ("notices", "", "", 1),
        ("rules", "", "", 1),
        ("rules", "gifts", "acme", 1827),
    ]


async def test_a_due_review_is_told_once_a_day(bus: NatsServer, admin: Client, tmp_path: Path, declare: Any, index: LanceIndex) -> None:
    """One event for each collection and day, also over a restart; the next day tells it again."""
    declare({"rules": ("anchored", []), "notices": ("fluid", [])})
    collections = catalogue.load(tmp_path / "domains")
    assert due(collections.values(), dt.date(2029, 12, 31)) == []
    connection = await connect(Settings(), "ingestor")
    subscription = await admin.jetstream().subscribe(REVIEW_DUE.pattern, ordered_consumer=True)
    told = []
    for today in (dt.date(2029, 12, 31), dt.date(2030, 1, 1), dt.date(2030, 1, 1), dt.date(2030, 1, 2)):
        watch = ReviewWatch(connection, collections, index, tmp_path / "state" / "reviews.json")
        told.append(await watch.announce(today))
    events = [decode(REVIEW_DUE, (await subscription.next_msg(timeout=180)).data) for _ in range(4)]
    await connection.drain()
    assert told == [0, 2, 0, 2]
    assert {(event.collection, event.owner, event.review_date) for event in events} == {
        ("notices", "desk", "2030-01-01"),
        ("rules", "desk", "2030-01-01"),
    }


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b.md", "..\\a.md", "a\x00.md", "a\n.md", "x" * 256])
def test_a_name_is_no_path(name: str) -> None:
    """Whatever could lead elsewhere is refused."""
    with pytest.raises(ServiceError, match="plain name"):
        file_name(name)
