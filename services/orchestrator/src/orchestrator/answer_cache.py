"""Answers that may be given again: found by everything that made them, and only while retrieval finds the same passages.

Retrieval runs before each look-up. It applies tenant, labels, validity and expiry as they are now, so that a passage that was
superseded, withdrawn, deleted, expired or hidden since leads to another key, whatever is still stored; see ADR 9.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf import json_format
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.answers import ALL_ANSWERS, ANSWERS_STREAM, answer_subject, document_token, rests_on
from orchestrator.generation import Plan
from orchestrator.runs import Run

log = get_logger("answer_cache")
# A look-up that takes longer than this is not worth its while.
_PATIENCE_SECONDS = 0.5
_LONGEST_ENTRY_BYTES = 64 * 1024
_AGAIN: Mapping[str, Any] = {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "cost_usd": 0.0,
    "first_token_ms": 0.0,
    "model_calls": 0,
    "released_chars": 0,
}


class AnswerCache:
    """The bucket of kept answers; a bus that does not answer is the same as a bucket without the answer."""

    def __init__(self, bus: Bus) -> None:
        """Use the bus' connection."""
        self._bus = bus

    async def find(self, run: Run, plan: Plan) -> dict[str, Any] | None:
        """Return the result of a generation that need not be made again, with where it came from as `cached`."""
        subject = place(run, plan)
        if subject is None:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                found = await self._bus.js.get_msg(ANSWERS_STREAM, subject=subject, direct=True)
            entry = json.loads(found.data or b"null")
        except (TimeoutError, NatsError, APIError, ValueError):
            return None
        if entry is None or time.time() - entry["kept_at"] > run.workflow.cache_seconds:
            return None
        return {**entry["result"], **_AGAIN, "cached": {"request_id": entry["request_id"], "trace_id": entry["trace_id"]}}

    async def keep(self, run: Run, plan: Plan, result: Mapping[str, Any]) -> None:
        """Keep the result of a generation whose text has left as it is; one that the bus does not take is not kept."""
        subject = place(run, plan)
        if subject is None:
            return
        origin = {"request_id": run.request.request_id, "trace_id": run.request.trace_id}
        body = json.dumps({"result": dict(result), "kept_at": time.time(), **origin}).encode()
        if len(body) > _LONGEST_ENTRY_BYTES:
            return
        try:
            await self._bus.js.publish(subject, body, stream=ANSWERS_STREAM, timeout=_PATIENCE_SECONDS)
        except (TimeoutError, NatsError, APIError, NoStreamResponseError) as error:
            log.info("answer_not_kept", request_id=run.request.request_id, error=repr(error))

    async def forget(self, tenant: str, requests: Collection[str]) -> None:
        """Drop the answers that were made for these requests; raise UnavailableError."""
        info = await self._ask(f"$JS.API.STREAM.INFO.{ANSWERS_STREAM}", {"subjects_filter": ALL_ANSWERS})
        subjects = (info.get("state") or {}).get("subjects") or {}
        for subject in [subject for subject in subjects if rests_on(subject)[0] == tenant]:
            try:
                found = await self._bus.js.get_msg(ANSWERS_STREAM, subject=subject, direct=True)
                made_for = (json.loads(found.data or b"null") or {}).get("request_id")
            except (NotFoundError, ValueError):
                continue
            except (TimeoutError, NatsError, APIError) as error:
                raise UnavailableError(f"the kept answers cannot be reached: {error!r}") from error
            if made_for in requests:
                await self._ask(f"$JS.API.STREAM.PURGE.{ANSWERS_STREAM}", {"filter": subject})

    async def drop(self, documents: Collection[str] | None) -> int:
        """Drop the answers that rest on documents, given by their tokens, or all; return how many; raise UnavailableError."""
        question = {"subjects_filter": ALL_ANSWERS}
        info = await self._ask(f"$JS.API.STREAM.INFO.{ANSWERS_STREAM}", question)
        subjects = (info.get("state") or {}).get("subjects") or {}
        gone = [subject for subject in subjects if documents is None or not rests_on(subject)[1].isdisjoint(documents)]
        for subject in gone:
            await self._ask(f"$JS.API.STREAM.PURGE.{ANSWERS_STREAM}", {"filter": subject})
        return len(gone)

    async def _ask(self, subject: str, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            reply = await self._bus.client.request(subject, json.dumps(question).encode(), timeout=self._bus.timeout_seconds)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the kept answers cannot be reached: {error!r}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        if answer.get("error"):
            raise UnavailableError(f"the bus refused {subject!r}: {answer['error']}")
        return answer


def place(run: Run, plan: Plan) -> str | None:
    """Return the subject of the answer that a generation leads to; None where none may be kept or given again."""
    screened = next((run.results[s.id] or {} for s in run.workflow.of_kind("screen") if s.id in run.results), {})
    tools = any(run.results.get(step.id) is not None for step in run.workflow.of_kind("tool"))
    if not run.workflow.cache_seconds or not plan.passages or screened.get("personal_data") or tools or run.request.tools:
        return None
    passages = [[p[name] for name in ("chunk_id", "collection", "document_id", "version", "date", "title", "text")] for p in plan.passages]
    request, caller = run.request, run.request.caller
    made_by = {
        "pins": dict(run.record.pins),
        "models": run.tools.catalogue.models_sha256,
        "encoders": [(run.results.get(s.id) or {}).get("encoder", "") for s in run.workflow.of_kind("retrieve")],
        "caller": [caller.tenant, caller.role, sorted(caller.labels), sorted(caller.permissions)],
        "messages": [[message.role, " ".join(message.content.split())] for message in run.messages],
        "context": run.context,
        "knowledge": [dict(request.filters), request.as_of.ToJsonString(), dict(request.positions)],
        "sampling": json_format.MessageToDict(request.sampling),
        "plan": [plan.step.id, plan.prompt.name, plan.tier, plan.adapter, plan.schema_json, plan.max_tokens],
        "passages": passages,
    }
    key = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    return answer_subject(caller.tenant, key, (document_token(p["collection"], p["document_id"]) for p in plan.passages))
