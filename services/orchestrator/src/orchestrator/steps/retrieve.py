"""Finds the passages that an answer may rest on."""

from typing import Any

from chassis import rpc
from orchestrator.passages import screened
from orchestrator.questions import question_of
from orchestrator.runs import Outcome, Run
from orchestrator.workflows import Step
from strata.retriever.v1.retriever_service_pb2 import (
    Compression,
    Expansion,
    MultiQuery,
    RetrievedPassage,
    RetrieveRequest,
    RetrieveResponse,
)


async def retrieve(run: Run, step: Step) -> Outcome:
    """Ask the retriever with what the caller may see."""
    request = RetrieveRequest(
        request_id=run.request.request_id,
        caller=run.request.caller,
        query=step.texts["query"].render(run.scope()) if "query" in step.texts else run.message,
        collections=step.spec["collections"],
        top_k=step.spec.get("top_k", 0),
        filters=run.request.filters,
        window_words=step.spec.get("window_words", 0),
        focus=question_of(run.message),
        at_least={name: place for name, place in run.request.at_least.items() if name in step.spec["collections"]},
        positions={name: place for name, place in run.request.positions.items() if name in step.spec["collections"]},
        accept_stale=run.request.accept_stale,
        # Half of what the step may take; the rest is for the search.
        wait_seconds=run.timeout(step) / 2,
        rewrite=step.spec.get("rewrite", ""),
        hypotheses=_hypotheses(run, step),
        **_options(step),
    )
    if run.request.HasField("as_of"):
        request.as_of.CopyFrom(run.request.as_of)
    response: RetrieveResponse = await rpc.call(run.tools.peers.retriever.Retrieve, request, timeout=run.timeout(step))
    kept, flagged = await screened(run, step, response.passages)
    knowledge: dict[str, Any] = {
        "encoder": response.encoder,
        "index_versions": dict(response.index_versions),
        "watermarks": dict(response.watermarks),
        "stale_seconds": dict(response.stale_seconds),
        # Such as a rerank that was skipped because its budget ran out.
        "outcomes": dict(response.outcomes),
    }
    details = {
        "passages": [
            {
                "chunk": p.chunk_id,
                "document": p.document_id,
                "collection": p.collection,
                "version": p.version,
                "sha256": p.document_sha256,
                "score": round(p.score, 4),
            }
            for p in response.passages
        ],
        "flagged": flagged,
        **knowledge,
        "queries": response.queries,
        "tokens": {"before": response.tokens_before, "after": response.tokens_after},
        "latency_ms": {name: round(value, 3) for name, value in response.latency_ms.items()},
    }
    return Outcome({"items": [_item(passage) for passage in kept], **knowledge}, details=details)


def _options(step: Step) -> dict[str, Any]:
    """Return the options that the step names as messages."""
    spec = step.spec
    made: dict[str, Any] = {}
    if "compress" in spec:
        made["compress"] = Compression(**spec["compress"])
    if "multi_query" in spec:
        made["multi_query"] = MultiQuery(**spec["multi_query"])
    if "expand" in spec:
        made["expand"] = Expansion(**spec["expand"])
    return made


def _hypotheses(run: Run, step: Step) -> list[str]:
    """Return the text that the step's hypothesis step made; none where it was skipped or its time ran out."""
    made = run.results.get(step.spec.get("hypothesis", "")) or {}
    return [str(made["text"])] if made.get("text") else []


def _item(passage: RetrievedPassage) -> dict[str, object]:
    return {
        "chunk_id": passage.chunk_id,
        "document_id": passage.document_id,
        "collection": passage.collection,
        "kind": passage.kind,
        "title": passage.title,
        "text": passage.text,
        "version": passage.version,
        "date": passage.date,
        "source": passage.source,
        "score": passage.score,
        "spans": [{"start": span.start, "end": span.end} for span in passage.spans or [passage]],
        "document_sha256": passage.document_sha256,
    }
