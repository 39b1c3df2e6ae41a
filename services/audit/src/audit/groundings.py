"""Which answers rest on which version of which document; rebuilt from the log at every start."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that cited a document."""

    tenant: str
    request_id: str
    trace_id: str


@dataclass
class Groundings:
    """Answers by document and version."""

    _answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Remember what a released answer cited; other records say nothing about it."""
        details = record.get("details")
        if record.get("step") != "release" or record.get("outcome") != "succeeded" or not isinstance(details, dict):
            return
        answer = Answer(str(record.get("tenant", "")), str(record.get("request_id", "")), str(record.get("trace_id", "")))
        for cited in details.get("citations") or ():
            self._answers.setdefault((str(cited.get("document", "")), str(cited.get("version", ""))), []).append(answer)

    def of(self, document_id: str, version: str) -> list[Answer]:
        """Return the answers that cited a version, oldest first."""
        return list(self._answers.get((document_id, version), ()))
