"""gRPC in: who may know what happened."""

import asyncio

from audit import wire
from audit.subscribers import Writer
from audit.verification import verify
from chassis.errors import InvalidArgumentError, NotFoundError
from chassis.rpc import Context
from strata.audit.v1.audit_service_pb2 import GetTraceRequest, GetTraceResponse, VerifyRequest, VerifyResponse
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceServicer

ALL_TENANTS = "audit:all"


class AuditServicer(AuditServiceServicer):
    """Reads the log; never writes it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def GetTrace(self, request: GetTraceRequest, context: Context) -> GetTraceResponse:  # noqa: N802, ARG002 - grpc's names
        """Return the records of a request or trace, of the caller's tenant only."""
        if not request.id:
            raise InvalidArgumentError("id is empty; give a request id or a trace id")
        entries = await asyncio.to_thread(self._writer.ledger().read, request.id)
        if ALL_TENANTS not in request.caller.permissions:
            entries = [entry for entry in entries if entry.record.get("tenant") == request.caller.tenant]
        if not entries:
            raise NotFoundError(f"no records of {request.id!r}")
        return GetTraceResponse(records=[wire.to_chained(entry) for entry in entries])

    async def Verify(self, request: VerifyRequest, context: Context) -> VerifyResponse:  # noqa: N802, ARG002 - grpc's names
        """Recompute the tree from the files, and compare its end with what this process wrote."""
        ledger = self._writer.ledger()
        await asyncio.to_thread(ledger.publish)
        return wire.to_verify_response(await asyncio.to_thread(verify, ledger.folder, claims=[ledger.head]))
