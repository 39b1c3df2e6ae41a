"""Detectors of others: declared in a file, called over HTTP or gRPC, held to the same budget and failure behaviour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import grpc
import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardrail.checks.base import CLEAR, Answer, Conversation, Decision, Finding, OnError, Source
from guardrail.checks.names import INPUT, OUTPUT
from strata.guardrail.v1 import detector_service_pb2 as pb
from strata.guardrail.v1 import guardrail_service_pb2 as contract
from strata.guardrail.v1.detector_service_pb2_grpc import DetectorServiceStub

STAGES = {
    "input": contract.STAGE_INPUT,
    "retrieved": contract.STAGE_RETRIEVED,
    "tool": contract.STAGE_TOOL,
    "output": contract.STAGE_OUTPUT,
}
# Whose texts of a conversation a detector of each stage sees.
_ROLES = {"input": frozenset({"user", "tool"}), "tool": frozenset({"tool"}), "retrieved": frozenset({"document"})}
_DECISIONS = {"block": Decision.BLOCK, "escalate": Decision.ESCALATE, "abstain": Decision.ABSTAIN, "regenerate": Decision.REGENERATE}


class ForeignFileError(OSError):
    """The file of foreign detectors cannot be used; the text names the place and the reason."""


class DetectorFailedError(Exception):
    """A foreign detector gave no answer that can be used."""


class Declaration(BaseModel):
    """One entry of the file: where a detector is, what it sees and what its objection means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")
    version: str = "foreign"
    stage: Literal["input", "retrieved", "tool", "output"]
    address: str = Field(description="https://…, http://… or grpc://host:port.")
    ca_file: Path | None = Field(default=None, description="Authority of the detector's certificate; with grpc, none means no TLS.")
    threshold: float = Field(gt=0, le=1)
    budget_ms: float = Field(gt=0, le=10_000)
    on_error: OnError
    decision: Literal["block", "escalate", "abstain", "regenerate"] = "block"
    summary: str = Field(min_length=10)
    measured: dict[str, str] = Field(min_length=1, description="Figures by name, each with the data it was measured on.")

    @model_validator(mode="after")
    def _address(self) -> "Declaration":
        if not self.address.startswith(("http://", "https://", "grpc://")):
            raise ValueError("address: must begin with https://, http:// or grpc://")
        return self


class _Transport(Protocol):
    def detect(self, texts: Sequence[str], sources: Sequence[Source]) -> list[tuple[float, str, str]]: ...


class _Http:
    """POST {stage, texts, passages} to the address; the answer is {results: [{score, code?, reason?}]}."""

    def __init__(self, declared: Declaration) -> None:
        self._declared = declared
        verify: Any = str(declared.ca_file) if declared.ca_file else True
        self._client = httpx.Client(timeout=declared.budget_ms / 1000, verify=verify, follow_redirects=False)

    def detect(self, texts: Sequence[str], sources: Sequence[Source]) -> list[tuple[float, str, str]]:
        passages = [{"id": s.id, "text": s.text, "title": s.title, "version": s.version} for s in sources]
        try:
            answer = self._client.post(
                self._declared.address, json={"stage": self._declared.stage, "texts": list(texts), "passages": passages}
            )
            answer.raise_for_status()
            return [(float(r["score"]), str(r.get("code", "")), str(r.get("reason", ""))) for r in answer.json()["results"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise DetectorFailedError(f"{self._declared.name}: {type(error).__name__}") from error


class _Grpc:
    """DetectorService.Detect at the address."""

    def __init__(self, declared: Declaration) -> None:
        self._declared = declared
        target = declared.address.removeprefix("grpc://")
        if declared.ca_file:
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(declared.ca_file.read_bytes()))
        else:
            channel = grpc.insecure_channel(target)
        self._stub = DetectorServiceStub(channel)

    def detect(self, texts: Sequence[str], sources: Sequence[Source]) -> list[tuple[float, str, str]]:
        passages = [contract.Passage(id=s.id, text=s.text, title=s.title, version=s.version) for s in sources]
        request = pb.DetectRequest(stage=STAGES[self._declared.stage], texts=texts, passages=passages)
        try:
            answer = self._stub.Detect(request, timeout=self._declared.budget_ms / 1000)
        except grpc.RpcError as error:
            raise DetectorFailedError(f"{self._declared.name}: {type(error).__name__}") from error
        return [(r.score, r.code, r.reason) for r in answer.results]


class _Foreign:
    """What both directions share."""

    cheap = False

    def __init__(self, declared: Declaration) -> None:
        """Connect on the first call."""
        self.name, self.version, self.threshold = declared.name, declared.version, declared.threshold
        self.budget_ms, self.on_error = declared.budget_ms, declared.on_error
        self.declared = declared
        self._transport: _Transport = _Grpc(declared) if declared.address.startswith("grpc://") else _Http(declared)

    def find(self, texts: Sequence[str], sources: Sequence[Source] = ()) -> Finding:
        """Return the worst of what the detector says; raise DetectorFailedError for an answer that cannot be used."""
        if not texts:
            return CLEAR
        found = self._transport.detect(texts, sources)
        if len(found) != len(texts) or not all(0 <= score <= 1 for score, _, _ in found):
            raise DetectorFailedError(f"{self.name}: {len(found)} scores for {len(texts)} texts, or one outside of 0 to 1")
        score, code, reason = max(found)
        if score < self.threshold:
            return Finding(score)
        return Finding(score, _DECISIONS[self.declared.decision], code or self.name, reason[:200])


class ForeignInputCheck(_Foreign):
    """Shows a foreign detector what its stage is about: what users and tools say, what tools say, or passages."""

    def __init__(self, declared: Declaration) -> None:
        """Connect on the first call."""
        super().__init__(declared)
        self.roles = _ROLES[declared.stage]

    def run(self, subject: Conversation, /) -> Finding:
        """Judge every text of the roles of its stage."""
        return self.find([piece.text for piece in subject.pieces if piece.role in self.roles and piece.text.strip()])


class ForeignOutputCheck(_Foreign):
    """Shows a foreign detector what a model wrote."""

    def run(self, subject: Answer, /) -> Finding:
        """Judge all that was released with this window."""
        return self.find([subject.released + subject.text] if subject.by_model else [], subject.sources)


def load_foreign(file: Path | None) -> tuple[Declaration, ...]:
    """Read the detectors that `file` declares; raise ForeignFileError for what cannot be used."""
    if file is None:
        return ()
    try:
        entries = yaml.safe_load(file.read_text()) or []
        found = tuple(Declaration(**entry) for entry in entries)
    except (OSError, yaml.YAMLError, ValidationError, TypeError) as error:
        raise ForeignFileError(f"{file}: {' '.join(str(error).split())[:300]}") from error
    if taken := sorted({d.name for d in found} & {*INPUT, *OUTPUT}):
        raise ForeignFileError(f"{file}: {taken} are names of built-in checks")
    if len({d.name for d in found}) != len(found):
        raise ForeignFileError(f"{file}: two detectors have one name")
    return found
