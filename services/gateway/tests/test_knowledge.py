"""Documents over HTTP, through the real gateway to a real ingestor."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import scripted
import yaml

from chassis.settings import ServiceSettings
from chassis.tasks import in_time
from testkit.nats import NatsServer, nats_server

_HOME = "/v1/knowledge/collections"
_RULES, _LAWS, _SIZES, _UPLOADS = (f"{_HOME}/{name}/documents" for name in ("rules", "laws", "sizes", "uploads"))
_DATE = {"effective_from": "2024-01-01"}
_PAGE = b"# Refunds\n\nRefunds take five days.\n"


class OtherSettings(ServiceSettings):
    """Settings of the service behind the gateway."""


@contextmanager
def _ingestor(server: NatsServer, home: Path) -> Iterator[None]:
    """Run ingestor as a process, with a collection for each test and one of the other kind."""
    folder = home / "domains" / "desk"
    entries = []
    for name, kind in (("rules", "anchored"), ("laws", "anchored"), ("sizes", "anchored"), ("uploads", "anchored"), ("notices", "fluid")):
        (folder / "documents" / name).mkdir(parents=True)
        entry = {"name": name, "kind": kind, "path": f"documents/{name}", "owner": "desk", "review_date": "2030-01-01", "licence": "MIT"}
        entries.append(entry | {"labels": ["public"]})
    (folder / "domain.yaml").write_text(yaml.safe_dump({"name": "desk", "collections": entries}))
    place = {"STRATA_STATE_DIR": str(server.state_dir), "STRATA_PORT_OFFSET": str(server.port_offset), "STRATA_HOME": str(home)}
    environment = {**os.environ, **place, "STRATA_INGESTOR_ENCODER_THREADS": "1"}
    with (home / "ingestor.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "ingestor"], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{OtherSettings(STRATA_PORT_OFFSET=server.port_offset).http_port('ingestor')}/readyz"
    try:
        for _ in range(3000):
            assert process.poll() is None, (home / "ingestor.log").read_text()[-2000:]
            with suppress(httpx.TransportError):
                if httpx.get(url).status_code == 200:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def house(installation: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A bus with an ingestor on it; its start takes longer than all tests here."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(installation, folder / "state")
    with nats_server(folder / "state") as server, _ingestor(server, folder / "home"):
        yield server


@pytest.fixture
def bus(house: NatsServer, monkeypatch: pytest.MonkeyPatch) -> NatsServer:
    """The same bus for all tests here."""
    monkeypatch.setenv("STRATA_STATE_DIR", str(house.state_dir))
    monkeypatch.setenv("STRATA_PORT_OFFSET", str(house.port_offset))
    return house


@pytest_asyncio.fixture
async def desk(run: Any) -> AsyncIterator[Any]:
    """A gateway with an ingestor behind it."""
    async with run(max_document_bytes=4 << 20, max_text_bytes=1 << 20, rpc_timeout_seconds=120) as stack:
        yield stack


def _file(data: bytes, name: str = "refunds.md", kind: str = "") -> dict[str, Any]:
    return {"file": (name, data, kind)}


def _code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_a_document_is_put_superseded_and_withdrawn(desk: Any) -> None:
    """A file and JSON become versions; the same again changes nothing; every change is on record with who made it."""
    async with desk.http(await desk.new_key(role="knowledge_editor")) as http:
        first = await http.post(_RULES, data={**_DATE, "labels": "public,staff", "metadata": '{"region": "eu"}'}, files=_file(_PAGE))
        again = await http.post(_RULES, data={**_DATE, "labels": ["public", "staff"], "metadata": '{"region": "eu"}'}, files=_file(_PAGE))
        body = {"id": "refunds", "title": "Refunds", "text": "Refunds take one day.", "version": "b", "effective_from": "2025-01-01"}
        second = await http.post(_RULES, json=body)
        conflict = await http.post(_RULES, json={**body, "text": "Another text."})
        named = await http.post(_RULES, json={**body, "id": "gifts", "version": "", "effective_from": "2026-01-01"})
        listed = await http.get(_HOME)
        no_reason = await http.delete(f"{_RULES}/refunds", params={"version": "b"})
        gone = await http.delete(f"{_RULES}/refunds", params={"version": "b", "reason": "published by mistake"})
        twice = await http.delete(f"{_RULES}/refunds", params={"version": "b", "reason": "again"})
    assert first.status_code == 201, first.text
    assert first.json() == {
        "object": "knowledge.document", "collection": "rules", "id": "refunds", "version": "2024-01-01", "changed": True, "chunks": 1,
        "supersedes": "", "title": "Refunds", "format": "markdown", "characters": len(_PAGE),
    }  # fmt: skip
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert (second.status_code, second.json()["supersedes"]) == (201, "2024-01-01")
    assert (named.status_code, named.json()["version"]) == (201, "2026-01-01")
    assert _code(conflict) == (409, "version_conflict")
    assert "another text" in conflict.json()["error"]["message"]
    assert listed.json()["data"][0] == {
        "id": "rules", "object": "knowledge.collection", "kind": "anchored", "owner": "desk", "review_date": "2030-01-01", "licence": "MIT",
    }  # fmt: skip
    assert _code(no_reason) == (400, "invalid_request")
    assert (gone.status_code, gone.json()["withdrawn"]) == (200, True)
    assert _code(twice) == (404, "not_found")
    records = [
        record
        for record in await scripted.records(desk.admin, "knowledge")
        if record.service == "gateway" and record.details["collection"] == "rules"
    ]
    assert [(record.details["action"], record.outcome, record.code) for record in records] == [
        ("put", "succeeded", ""),
        ("put", "succeeded", ""),
        ("put", "succeeded", ""),
        ("put", "rejected", "version_conflict"),
        ("put", "succeeded", ""),
        ("withdraw", "rejected", "invalid_request"),
        ("withdraw", "succeeded", ""),
        ("withdraw", "rejected", "not_found"),
    ]
    assert {(record.tenant, record.details["role"]) for record in records} == {("acme", "knowledge_editor")}
    assert records[0].details["content_sha256"] == records[1].details["content_sha256"]
    assert records[6].details["reason"] == "published by mistake"


async def test_who_may_write_what(desk: Any) -> None:
    """Without the permission nothing; with it the own tenant's documents; with the wider one everybody's."""
    app, acme = await desk.new_key(), await desk.new_key(role="knowledge_editor")
    globex = await desk.new_key(role="knowledge_editor", tenant="globex")
    admin = await desk.new_key(role="knowledge_admin")
    remove = {"version": "2024-01-01", "reason": "mistake"}
    async with desk.http(app) as http:
        refused = [await http.post(_LAWS, data=_DATE, files=_file(_PAGE)), await http.get(_HOME), await http.delete(f"{_LAWS}/x")]
        nobody = await http.get(_HOME, headers={"authorization": "Bearer nobody"})
    async with desk.http(acme) as http:
        own = await http.post(_LAWS, data=_DATE, files=_file(_PAGE))
        foreign = [
            await http.post(_LAWS, data={**_DATE, "tenant": "globex"}, files=_file(_PAGE)),
            await http.post(_LAWS, data={**_DATE, "tenant": "*"}, files=_file(_PAGE)),
            await http.delete(f"{_LAWS}/refunds", params={**remove, "tenant": "globex"}),
        ]
    async with desk.http(globex) as http:
        not_theirs = await http.delete(f"{_LAWS}/refunds", params=remove)
        front_matter = b"---\ntenant: acme\nid: refunds\n---\n" + _PAGE
        theirs = await http.post(_LAWS, data=_DATE, files=_file(front_matter, "page.md"))
    async with desk.http(admin) as http:
        for_all = await http.post(_LAWS, data={**_DATE, "tenant": "*"}, files=_file(_PAGE))
        bad_tenant = await http.post(_LAWS, data={**_DATE, "tenant": "a.>"}, files=_file(_PAGE))
        counts = {entry["id"]: entry["documents"] for entry in (await http.get(_HOME)).json()["data"]}
    assert [_code(response) for response in [*refused, *foreign]] == [(403, "permission_denied")] * 6
    assert _code(nobody) == (401, "invalid_api_key")
    assert [response.status_code for response in (own, theirs, for_all)] == [201, 201, 201]
    assert _code(not_theirs) == (404, "not_found")
    assert _code(bad_tenant) == (400, "invalid_request")
    assert counts["laws"] == 3


async def _begun(desk: Any, key: str, length: str, body: bytes) -> str:
    """Return the beginning of the answer to an upload of which no more than `body` is ever sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(desk.url.rpartition(":")[2]))
    head = f"POST {_SIZES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    writer.write(f"{head}{length}\r\n\r\n".encode() + body)
    try:
        return (await in_time(180, reader.readuntil(b"}}"))).decode()
    finally:
        writer.close()


async def test_a_file_that_is_too_large_is_refused_early(desk: Any) -> None:
    """200 MB end with 413 before they are sent: at once where the length is said, and after the bound where it is not."""
    key, megabyte = await desk.new_key(role="knowledge_editor"), b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    fields = b'--b\r\nContent-Disposition: form-data; name="effective_from"\r\n\r\n2024-01-01\r\n'
    fields += b'--b\r\nContent-Disposition: form-data; name="file"; filename="huge.txt"\r\n\r\n'
    said = await _begun(desk, key, f"Content-Length: {200 << 20}", b"")
    unsaid = await _begun(desk, key, "Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(fields), fields) + 6 * megabyte)
    async with desk.http(key) as http:
        whole = await http.post(_SIZES, data=_DATE, files=_file(bytes(200 << 20), "huge.txt"))
        text = await http.post(_SIZES, json={"id": "x", "title": "x", "text": "x" * ((1 << 20) + 1), **_DATE})
        fine = await http.post(_SIZES, data=_DATE, files=_file(_PAGE))
    assert all(answer.startswith("HTTP/1.1 413") and "document_too_large" in answer for answer in (said, unsaid))
    assert [_code(response) for response in (whole, text)] == [(413, "document_too_large")] * 2
    assert fine.json()["changed"] is True


_BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"data": _DATE, "files": _file(b"%PDF-1.7\nbroken", "a.pdf")}, 422, "unreadable_document"),
    ({"data": _DATE, "files": _file(bytes(range(256)), "a.md")}, 422, "binary_as_text"),
    ({"data": _DATE, "files": _file(b"a,b", "a.csv")}, 415, "unsupported_document"),
    ({"data": {}, "files": _file(_PAGE)}, 422, "missing_effective_date"),
    ({"data": {"effective_from": "soon"}, "files": _file(_PAGE)}, 400, "invalid_request"),
    ({"data": {**_DATE, "labels": "Not A Label"}, "files": _file(_PAGE)}, 400, "invalid_request"),
    ({"data": {**_DATE, "text": "x"}, "files": _file(_PAGE)}, 400, "invalid_request"),
    ({"data": {**_DATE, "unknown": "x"}, "files": _file(_PAGE)}, 400, "invalid_request"),
    ({"data": {**_DATE, "metadata": "{"}, "files": _file(_PAGE)}, 400, "invalid_request"),
    ({"data": {**_DATE, "id": "../../x"}, "files": _file(_PAGE)}, 400, "invalid_request"),
    ({"data": _DATE, "files": {"other": ("a.md", _PAGE)}}, 400, "invalid_request"),
    ({"data": _DATE, "files": [("file", ("a.md", _PAGE)), ("file", ("b.md", _PAGE))]}, 400, "invalid_request"),
    ({"data": _DATE}, 400, "invalid_request"),
    ({"json": {"id": "a", "title": "a"}}, 400, "invalid_request"),
    ({"json": ["a"]}, 400, "invalid_request"),
    ({"json": {"id": "../a", "title": "a", "text": "x"}}, 400, "invalid_request"),
    (
        {"content": b'{"id": "a", "title": "a", "text": "x\\ud800"}', "headers": {"content-type": "application/json"}},
        400,
        "invalid_request",
    ),
    ({"json": {"id": "a", "title": "a", "text": "x", "expires_at": "9999-12-31T23:59:59-05:00"}}, 400, "invalid_request"),
    ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
    ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "invalid_request"),
    ({"content": b"garbage", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "invalid_request"),
    (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../etc/a.md"\r\n\r\nx\r\n--b--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400,
        "invalid_request",
    ),
    (
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.md"\r\n\r\n# Cut o',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400,
        "invalid_request",
    ),
]


async def test_bad_uploads(desk: Any) -> None:
    """Each has its status and code, and nothing of it is stored; whoever names what is not there learns no names."""
    async with desk.http(await desk.new_key(role="knowledge_admin")) as http:
        answers = [await http.post(_UPLOADS, **request) for request, _, _ in _BAD]
        absent = [
            await http.post(f"{_HOME}/nowhere/documents", data=_DATE, files=_file(_PAGE)),
            await http.get(f"{_HOME}/uploads"),
            await http.put(_UPLOADS, json={}),
            await http.delete(_UPLOADS),
            await http.get("/v1/knowledge/"),
        ]
        query = await http.delete(f"{_UPLOADS}/x", params={"versions": "1"})
        counts = {entry["id"]: entry["documents"] for entry in (await http.get(_HOME)).json()["data"]}
    assert [_code(answer) for answer in answers] == [(status, code) for _, status, code in _BAD]
    assert [_code(answer) for answer in absent] == [(404, "not_found")] * 5
    assert not any(name in absent[0].text for name in counts)
    assert _code(query) == (400, "invalid_request")
    assert (counts["uploads"], counts["notices"]) == (0, 0)
