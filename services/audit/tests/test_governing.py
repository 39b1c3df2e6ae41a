"""What the running service gives away and destroys, and that each of it is on record."""

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import json_format
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from audit.keys import KeyVault, load_master_key
from audit.main import start
from audit.settings import Settings
from chassis import rpc
from chassis.errors import FailedPreconditionError, NotFoundError, PermissionDeniedError
from chassis.messaging import encode
from chassis.process import running
from cli import bundling
from contracts.subjects import AUDIT
from evidence import bundles, receipts
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.gateway.v1.gateway_events_pb2 import Caller
from testkit.nats import NatsServer

from .running import until_acknowledged, until_status
from .story import records

DIGEST = "a" * 64
ANN = Caller(tenant="acme", role="app", user="ann", key_id="k-ann")
OPERATOR = Caller(tenant="operator", role="operator", user="root", permissions=["audit:all"])


@pytest_asyncio.fixture
async def stub(bus: NatsServer, admin: Client) -> AsyncIterator[Any]:
    """The service with one request of ann."""
    settings = Settings(min_free_bytes=0)
    async with running("audit", settings, start), rpc.channel(settings, "gateway", "audit") as channel:
        for received in records(1, request="req_ann", user="ann", text_sha256=DIGEST):
            record = json_format.ParseDict(received.record, StepRecorded())
            await admin.jetstream().publish(AUDIT.at(tenant="acme", step=record.step), encode(AUDIT, record))
        await until_acknowledged(admin)
        yield AuditServiceStub(channel)


async def _listening(admin: Client, subject: str) -> Subscription:
    subscription = await admin.subscribe(subject)
    await admin.flush()
    return subscription


async def _recorded(subscription: Subscription, count: int) -> list[StepRecorded]:
    """Return the records that were published since, and no more than there are; the stream keeps none that is logged."""
    found = [json_format.Parse((await subscription.next_msg(timeout=180)).data, StepRecorded()) for _ in range(count)]
    with pytest.raises(TimeoutError):
        await subscription.next_msg(timeout=0.2)
    return found


async def test_whoever_reads_the_audit_is_on_record(stub: Any, admin: Client) -> None:
    """Trace, receipt, evidence, search: one record each, with who and what; asking only for places discloses nothing and leaves none."""
    heard = await _listening(admin, "strata.v1.audit.acme.audit_read")
    reader = Caller(tenant="acme", role="auditor", user="eve", key_id="k-eve", permissions=["audit:read", "trace:read"])
    await rpc.call(stub.GetTrace, pb.GetTraceRequest(id="req_ann", caller=reader, places_only=True), timeout=180)
    await rpc.call(stub.GetTrace, pb.GetTraceRequest(id="req_ann", caller=reader), timeout=180)
    await rpc.call(stub.GetEvidence, pb.GetEvidenceRequest(request_id="req_ann", caller=reader), timeout=180)
    found = await rpc.call(stub.SearchRecords, pb.SearchRecordsRequest(user="ann", caller=reader), timeout=180)
    receipt = await rpc.call(stub.GetReceipt, pb.GetReceiptRequest(request_id="req_ann", caller=ANN), timeout=180)

    assert receipts.verify(receipt.cose).holds
    assert json.loads(receipt.receipt_json)["text_sha256"] == DIGEST
    assert len(found.records) == 4
    assert not any(one.record.HasField("details") for one in found.records)
    reads = await _recorded(heard, 4)
    assert [(read.details["what"], read.user) for read in reads] == [
        ("trace", "eve"), ("evidence", "eve"), ("search", "eve"), ("receipt", "ann"),
    ]  # fmt: skip
    assert reads[0].details["of"] == "req_ann"
    assert '"ann"' not in json_format.MessageToJson(reads[2].details)
    with pytest.raises(PermissionDeniedError):
        await rpc.call(stub.SearchRecords, pb.SearchRecordsRequest(caller=ANN), timeout=180)


async def test_an_operator_gets_a_bundle_that_verifies(stub: Any, tmp_path: Path) -> None:
    """The command puts records, proofs, policies and cards of the repository into one file, which holds without the log."""
    target = tmp_path / "bundle.zip"
    manifest = await bundling.bundle(Settings(), OPERATOR, "req_ann", target)
    found = bundles.verify(target)

    assert found.holds, found.problems
    assert (found.facts["records"], found.facts["tenant"]) == (5, "acme")
    assert {"policies/healthcare/policy.yaml", "cards/adapters/patient-answer@v1/metrics.json"} <= manifest["files"].keys()
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("extra.txt", "added later")
    assert bundles.verify(target).problems == ["extra.txt: not in the manifest"]


async def test_an_erasure_is_attempted_verified_and_refused_under_hold(stub: Any, admin: Client) -> None:
    """The log says what was tried and what happened; the records stay, their content does not."""
    heard = await _listening(admin, "strata.v1.audit.acme.erasure")
    hold = pb.SetHoldRequest(caller=OPERATOR, tenant="acme", subject="ann", reason="case 7")
    erase = pb.EraseSubjectRequest(caller=OPERATOR, tenant="acme", subject="ann", reason="she asked for it")
    lift = pb.LiftHoldRequest(caller=OPERATOR, tenant="acme", subject="ann", reason="case closed")
    await rpc.call(stub.SetHold, hold, timeout=180)
    with pytest.raises(FailedPreconditionError, match="legal hold"):
        await rpc.call(stub.EraseSubject, erase, timeout=180)
    assert len((await rpc.call(stub.ListHolds, pb.ListHoldsRequest(caller=OPERATOR), timeout=180)).holds) == 1
    assert (await rpc.call(stub.LiftHold, lift, timeout=180)).lifted
    done = await rpc.call(stub.EraseSubject, erase, timeout=180)
    with pytest.raises(PermissionDeniedError):
        await rpc.call(stub.EraseSubject, pb.EraseSubjectRequest(caller=ANN, tenant="acme", subject="ann", reason="mine"), timeout=180)

    assert done.requests == 1
    erasures = await _recorded(heard, 4)
    assert [one.phase for one in erasures] == ["attempted", "failed", "attempted", "verified"]
    assert "ann" not in json_format.MessageToJson(erasures[0].details)
    trace = await rpc.call(stub.GetTrace, pb.GetTraceRequest(id="req_ann", caller=ANN), timeout=180)
    assert [one.erased for one in trace.records] == [True] * 5
    with pytest.raises(NotFoundError):
        await rpc.call(stub.GetReceipt, pb.GetReceiptRequest(request_id="req_ann", caller=ANN), timeout=180)
    assert (await rpc.call(stub.Verify, pb.VerifyRequest(), timeout=180)).intact


def _files_with(state: Path, *texts: str) -> list[Path]:
    """Return the files of a state folder that hold one of the texts; one that goes away meanwhile holds nothing."""
    found = []
    for path in (path for root in (state, (state / "nats").resolve()) for path in root.rglob("*")):
        with suppress(OSError):
            if path.is_file() and any(text in path.read_bytes() for text in map(str.encode, texts)):
                found.append(path)
    return found


async def test_no_file_names_whom_an_erasure_was_about(bus: NatsServer, admin: Client) -> None:
    """What was recorded of a person is in the bus' files until it is logged, and after the erasure in no file of the state at all."""
    name, comment = "ada.lovelace.1815@x.example", "ada.wrote.this.comment.herself"
    for received in records(1, request="req_ada", user=name, text_sha256=DIGEST):
        record = json_format.ParseDict(received.record, StepRecorded())
        record.details["comment"] = comment
        await admin.jetstream().publish(AUDIT.at(tenant="acme", step=record.step), encode(AUDIT, record))
    assert _files_with(bus.state_dir, name, comment)
    settings = Settings(min_free_bytes=0)
    async with running("audit", settings, start), rpc.channel(settings, "gateway", "audit") as channel:
        erase = pb.EraseSubjectRequest(caller=OPERATOR, tenant="acme", subject=name, reason="she asked for it")
        # The log may still be closed; what waits in the stream is erased all the same.
        await until_status(admin, writable=True)
        assert (await rpc.call(AuditServiceStub(channel).EraseSubject, erase, timeout=180)).requests == 1
        async with asyncio.timeout(180):
            # The last block of a stream goes when nothing in it waits any more.
            while _files_with(bus.state_dir, name, comment):  # noqa: ASYNC110 - files signal nothing
                await asyncio.sleep(0.05)


async def test_keys_of_a_class_go_when_their_time_is_over(bus: NatsServer, admin: Client) -> None:
    """A class with a bound loses its old keys at the daily task, which is on record; other classes keep theirs."""
    settings = Settings(min_free_bytes=0, retention_days={"release": 1})

    vault = KeyVault(settings.keys_file, load_master_key(settings.master_key_file))
    old = vault.seal_keys([("acme", "user/ann", "release", "2020-01"), ("acme", "user/ann", "default", "2020-01")])
    heard = await _listening(admin, "strata.v1.audit.system.keys_expired")
    async with running("audit", settings, start):
        expired = await _recorded(heard, 1)

    assert [key.id in vault.open_keys({key.id}) for key in old] == [False, True]
    assert (expired[0].details["retention"], expired[0].details["keys"]) == ("release", 1)
    vault.close()
