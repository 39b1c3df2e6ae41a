"""gRPC in: who may know what happened, who gets proof of it, and who may make parts of it unreadable."""

import asyncio
import hashlib

from audit import disclosing, governing, searching, wire
from audit.access import AccessLog
from audit.disclosing import ALL_TENANTS
from audit.eraser import Eraser
from audit.subscribers import Writer
from audit.terms import user_subject
from audit.verification import verify
from chassis.errors import InvalidArgumentError, NotFoundError
from chassis.rpc import Context
from evidence.records import canonical
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceServicer


class AuditServicer(AuditServiceServicer):
    """Reads the log, and has whatever is read put on record first; records reach the log by the bus alone."""

    def __init__(self, writer: Writer, access: AccessLog, eraser: Eraser) -> None:
        self._writer, self._access, self._eraser = writer, access, eraser

    async def GetTrace(self, request: pb.GetTraceRequest, context: Context) -> pb.GetTraceResponse:  # noqa: N802, ARG002 - grpc's names
        """Return the records of a request or trace, of the caller's tenant only."""
        if not request.id:
            raise InvalidArgumentError("id is empty; give a request id or a trace id")
        entries = await asyncio.to_thread(self._writer.ledger().read, request.id)
        if ALL_TENANTS not in request.caller.permissions:
            entries = [entry for entry in entries if entry.record.get("tenant") == request.caller.tenant]
        if not entries:
            raise NotFoundError(f"no records of {request.id!r}")
        if request.places_only:
            return pb.GetTraceResponse(records=[pb.ChainedRecord(index=entry.index, hash=entry.hash.hex()) for entry in entries])
        tenant = str(entries[0].record.get("tenant", ""))
        await self._access.read(request.caller, "trace", tenant=tenant, of=request.id, records=len(entries))
        return pb.GetTraceResponse(records=[wire.to_chained(entry) for entry in entries])

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:  # noqa: N802, ARG002 - grpc's names
        """Recompute the tree from the files, and compare its end with what this process wrote."""
        ledger = self._writer.ledger()
        await asyncio.to_thread(ledger.publish)
        return wire.to_verify_response(await asyncio.to_thread(verify, ledger.folder, claims=[ledger.head]))

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Context) -> pb.GetReceiptResponse:  # noqa: N802, ARG002 - grpc's names
        """Return the receipt of an answer."""
        found, cose = await asyncio.to_thread(disclosing.receipt, self._writer.ledger(), request.request_id, request.caller)
        await self._access.read(request.caller, "receipt", of=request.request_id, index=found["index"])
        return pb.GetReceiptResponse(receipt_json=canonical(found), cose=cose)

    async def GetEvidence(self, request: pb.GetEvidenceRequest, context: Context) -> pb.GetEvidenceResponse:  # noqa: N802, ARG002 - grpc's names
        """Return the opened records of a request with their proofs."""
        found = await asyncio.to_thread(disclosing.evidence, self._writer.ledger(), request.request_id, request.caller)
        await self._access.read(request.caller, "evidence", tenant=found.tenant, of=request.request_id, records=len(found.records))
        return found

    async def SignManifest(self, request: pb.SignManifestRequest, context: Context) -> pb.SignManifestResponse:  # noqa: N802, ARG002 - grpc's names
        """Sign the list of files of a bundle; which one it was is on record."""
        found, cose = await asyncio.to_thread(disclosing.sign_manifest, self._writer.ledger(), request.manifest_json, request.caller)
        digest = hashlib.sha256(request.manifest_json).hexdigest()
        await self._access.read(request.caller, "bundle", of=found["request_id"], manifest_sha256=digest)
        return pb.SignManifestResponse(cose=cose)

    async def SearchRecords(self, request: pb.SearchRecordsRequest, context: Context) -> pb.SearchRecordsResponse:  # noqa: N802, ARG002 - grpc's names
        """Return one page of what is looked for."""
        ledger = self._writer.ledger()
        found, cursor = await asyncio.to_thread(searching.search, ledger, request)
        asked = {field.name: str(value) for field, value in request.ListFields() if field.name not in {"caller", "user"}}
        if request.user:
            # Who was looked for must not outlive an erasure in a record about the one who looked.
            subject = user_subject(request.user)
            asked["user_token"] = await asyncio.to_thread(ledger.vault.token, request.tenant or request.caller.tenant, subject)
        await self._access.read(request.caller, "search", tenant=request.tenant, records=len(found), asked=asked)
        return pb.SearchRecordsResponse(records=[wire.to_chained(entry) for entry in found], next_cursor=cursor)

    async def RebuildView(self, request: pb.RebuildViewRequest, context: Context) -> pb.RebuildViewResponse:  # noqa: N802, ARG002 - grpc's names
        """Make the lookups anew."""
        disclosing.require(request.caller, ALL_TENANTS)
        return pb.RebuildViewResponse(records=await asyncio.to_thread(governing.rebuild, self._writer.ledger()))

    async def EraseSubject(self, request: pb.EraseSubjectRequest, context: Context) -> pb.EraseSubjectResponse:  # noqa: N802, ARG002 - grpc's names
        """Destroy the keys of a user, and have whoever else keeps something forget it."""
        return await self._eraser.erase(request)

    async def GetErasure(self, request: pb.GetErasureRequest, context: Context) -> pb.GetErasureResponse:  # noqa: N802, ARG002 - grpc's names
        """Return how far an erasure is elsewhere."""
        return await self._eraser.state(request)

    async def SetHold(self, request: pb.SetHoldRequest, context: Context) -> pb.SetHoldResponse:  # noqa: N802, ARG002 - grpc's names
        """Keep records from erasure and expiry."""
        governing.check(request.caller, request.tenant, request.reason)
        ledger, subject = self._writer.ledger(), governing.subject_of(request.subject)
        about = await asyncio.to_thread(governing.described, ledger, request.tenant, request.subject, request.reason)
        who = governing.name_of(request.caller)
        async with self._eraser.alone:
            await asyncio.to_thread(ledger.vault.hold, request.tenant, subject, reason=request.reason, set_by=who)
        # The effect comes first: what must not be lost must not wait for a bus that is away.
        await self._access.record(request.caller, "hold_set", tenant=request.tenant, **about)
        return pb.SetHoldResponse()

    async def LiftHold(self, request: pb.LiftHoldRequest, context: Context) -> pb.LiftHoldResponse:  # noqa: N802, ARG002 - grpc's names
        """Let records be erased again; on record before it holds."""
        governing.check(request.caller, request.tenant, request.reason)
        ledger, subject = self._writer.ledger(), governing.subject_of(request.subject)
        about = await asyncio.to_thread(governing.described, ledger, request.tenant, request.subject, request.reason)
        await self._access.record(request.caller, "hold_lifted", tenant=request.tenant, **about)
        return pb.LiftHoldResponse(lifted=await asyncio.to_thread(ledger.vault.lift_hold, request.tenant, subject))

    async def ListHolds(self, request: pb.ListHoldsRequest, context: Context) -> pb.ListHoldsResponse:  # noqa: N802, ARG002 - grpc's names
        """Return the holds of a tenant, or all."""
        governing.check(request.caller, request.tenant, None)
        rows = await asyncio.to_thread(self._writer.ledger().vault.holds, request.tenant)
        await self._access.read(request.caller, "holds", tenant=request.tenant, records=len(rows))
        names = ("tenant", "subject_token", "reason", "set_by", "at")
        return pb.ListHoldsResponse(holds=[pb.Hold(**dict(zip(names, row, strict=True))) for row in rows])
