"""/v1/receipts and /v1/audit: proof of one's answer to keep, and lookups in the audit log for who may."""

from typing import Any

from chassis import rpc
from chassis.errors import InvalidArgumentError
from chassis.messaging import to_json
from contracts.subjects import TOKEN
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub

RECEIPTS, AUDIT_RECORDS = "/v1/receipts", "/v1/audit/records"
READ_AUDIT = "audit:read"
_COSE = b"application/cose"
_FILTERS = frozenset({"id", "since", "until", "user", "document", "adapter", "verdict", "policy", "step"})
_LARGEST_PAGE = 500


class Receipts:
    """Answers GET requests below both paths; the audit service decides who sees what, and keeps who looked."""

    def __init__(self, parts: Parts, service: AuditServiceStub) -> None:
        """Bind the parts and the service."""
        self._parts, self._service = parts, service

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raise ServiceError for whoever may not, and for what is wrong."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        self._parts.stops.check(tenant=caller.tenant)
        if exchange.method != "GET":
            raise RefusedError("not_found")
        share = self._parts.gate.enter(caller.tenant, 0)
        try:
            if exchange.path == AUDIT_RECORDS:
                return await self._search(exchange, caller)
            return await self._receipt(exchange, caller, exchange.path.removeprefix(RECEIPTS).removeprefix("/"))
        finally:
            share.leave()

    async def _receipt(self, exchange: Exchange, caller: Any, request_id: str) -> None:
        if not TOKEN.fullmatch(request_id):
            raise RefusedError("not_found")
        found: pb.GetReceiptResponse = await self._call(
            self._service.GetReceipt, pb.GetReceiptRequest(caller=caller, request_id=request_id)
        )
        if "application/cose" in exchange.header(b"accept"):
            return await exchange.respond(200, found.cose, _COSE)
        return await exchange.respond(200, found.receipt_json)

    async def _search(self, exchange: Exchange, caller: Any) -> None:
        if READ_AUDIT not in caller.permissions:
            raise RefusedError("permission_denied")
        query = exchange.query_fields(_FILTERS | {"limit", "cursor"})
        request = pb.SearchRecordsRequest(caller=caller, limit=_limit(query.pop("limit", "0")), cursor=query.pop("cursor", ""), **query)
        try:
            found = to_json(await self._call(self._service.SearchRecords, request))
        except InvalidArgumentError as error:
            raise RefusedError("invalid_request", str(error)[:300]) from error
        records = [{"index": int(one.get("index", 0)), "hash": one["hash"], **one["record"]} for one in found.get("records", [])]
        cursor = found.get("next_cursor") or None
        body = {"object": "list", "data": records, "has_more": cursor is not None, "next_cursor": cursor}
        await exchange.respond_json(body)

    async def _call(self, method: Any, request: Any) -> Any:
        return await rpc.call(method, request, timeout=2 * self._parts.settings.rpc_timeout_seconds)


def _limit(text: str) -> int:
    if not text.isdecimal() or len(text) > 4 or int(text) > _LARGEST_PAGE:
        raise RefusedError("invalid_request", f"At most {_LARGEST_PAGE} records a page.", param="limit")
    return int(text)
