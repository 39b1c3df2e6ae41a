"""Sentence by sentence: what an answer rests on, and why it does not."""

from datetime import date
from pathlib import Path

import pytest

from encoders import Encoder
from encoders.grounding import SupportScorer
from guardrail.checks.base import Answer, Decision, Source
from guardrail.checks.grounding import GroundingCheck, Support
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub

ROOT = Path(__file__).parents[3]
IBUPROFEN = Source(
    "1",
    "Ibuprofen relieves pain and fever. Adults may take 400 mg of ibuprofen every six hours. "
    "Ibuprofen may cause stomach pain in some patients. It should not be used in the last 3 months of pregnancy.",
    title="Ibuprofen",
)
AMOXICILLIN = Source(
    "2", "Amoxicillin treats ear infections. Adults may take 500 mg of amoxicillin every eight hours.", title="Amoxicillin"
)
OLD = Source("1", "Shoes can be returned within 30 days of the purchase.", "Returns", "v1", "returns", "2023-01-01")
NEW = Source("2", "Shoes can be returned within 60 days of the purchase.", "Returns", "v2", "returns", "2024-01-01")


@pytest.fixture(scope="module")
def check() -> GroundingCheck:
    """The check with the shipped weights, on a fixed day."""
    scorer = SupportScorer.load(ROOT / "models" / "grounding", Encoder.load())
    return GroundingCheck(scorer, 5000.0, clock=lambda: date(2024, 6, 1))


def judged(check: GroundingCheck, text: str, *sources: Source) -> Support:
    """Return the support of the one sentence of `text`."""
    finding = check.run(Answer(text, sources=sources or (IBUPROFEN, AMOXICILLIN), require_grounding=True))
    assert isinstance(finding.detail, tuple)
    (support,) = finding.detail
    assert isinstance(support, Support)
    assert finding.flagged == support.weak
    return support


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Adults may take 400 mg of ibuprofen every six hours [1].", "verbatim"),
        ("Adults may take 400mg of ibuprofen every 6 hours [1].", "supported"),
        ("Adults may take 0.4 g of ibuprofen every six hours [1].", "supported"),
        ("Adults may take 800 mg of ibuprofen every six hours [1].", "figure"),
        ("Adults may take 400 g of ibuprofen every six hours [1].", "figure"),
        ("Adults may take 500 mg of ibuprofen every six hours.", "blended"),
        ("Ibuprofen relieves pain and fever and treats ear infections.", "blended"),
        ("Ibuprofen causes stomach pain in all patients [1].", "extrapolated"),
        ("Ibuprofen should be used in the last 3 months of pregnancy [1].", "negated"),
        ("Adults may take 400 mg of ibuprofen every six hours, says Zorvatex [1].", "name"),
        ("The warranty of kettles covers accidental damage [1].", "unsupported"),
    ],
)
def test_each_fault_of_a_sentence_has_its_kind(check: GroundingCheck, text: str, kind: str) -> None:
    """Copies and other spellings pass; a made-up figure, a blend, an exaggeration and a negation do not."""
    found = judged(check, text)

    assert found.kind == kind, found
    assert found.weak is (kind not in {"verbatim", "supported"})
    assert bool(found.reason) is found.weak


def test_a_copy_says_where_its_evidence_stands(check: GroundingCheck) -> None:
    """The characters of the passage are the words of the claim."""
    found = judged(check, "Adults may take 400 mg of ibuprofen every six hours [1].")

    start, end = found.evidence
    assert IBUPROFEN.text[start:end] == "Adults may take 400 mg of ibuprofen every six hours"


@pytest.mark.parametrize("dose", ["800 mg", "4 g", "4000mg", "40 mg/kg", "twelve tablets", "41%", "1,400 mg", "400 mcg"])
def test_a_made_up_dose_never_passes(check: GroundingCheck, dose: str) -> None:
    """However much the words agree, a dose that no passage holds is refused with almost no support."""
    found = judged(check, f"Adults may take {dose} of ibuprofen every six hours [1].")

    assert found.weak
    assert found.probability <= 0.05


@pytest.mark.parametrize(
    ("text", "sources", "kind"),
    [
        ("Shoes can be returned within 30 days of the purchase [1].", (OLD, NEW), "stale"),
        ("Shoes can be returned within 60 days of the purchase [2].", (OLD, NEW), "verbatim"),
        ("Shoes can be returned within 30 days of the purchase [1].", (OLD,), "verbatim"),
        ("Previously, shoes can be returned within 30 days of the purchase [1].", (OLD, NEW), "supported"),
        ("Shoes can be returned within 30 days of the purchase.", (Source("1", OLD.text, superseded_by="v2"),), "stale"),
        ("Shoes can be returned within 30 days of the purchase.", (Source("1", OLD.text, effective_to="2024-05-01"),), "stale"),
        ("Shoes can be returned within 30 days of the purchase.", (Source("1", OLD.text, effective_to="2024-07-01"),), "verbatim"),
    ],
)
def test_a_passage_that_is_out_of_force_supports_nothing(check: GroundingCheck, text: str, sources: tuple[Source, ...], kind: str) -> None:
    """Superseded by its own word, by its day, or by a later version beside it; a sentence about the past may rest on it."""
    assert judged(check, text, *sources).kind == kind


def test_a_later_version_that_is_not_in_force_yet_supersedes_nothing(check: GroundingCheck) -> None:
    """A version of next year leaves this year's in force."""
    future = Source("2", NEW.text, "Returns", "v3", "returns", "2025-01-01")

    assert judged(check, "Shoes can be returned within 30 days of the purchase [1].", OLD, future).kind == "verbatim"


def test_without_passages_every_sentence_says_so(check: GroundingCheck) -> None:
    """An answer that must be grounded and has no passages is abstained from."""
    finding = check.run(Answer("Aspirin is safe for every child.", require_grounding=True))

    assert finding.decision is Decision.ABSTAIN
    assert [support.kind for support in finding.detail] == ["no_passage"]  # type: ignore[attr-defined]


async def test_the_wire_carries_the_kind_the_reason_and_the_evidence(stub: GuardrailServiceStub) -> None:
    """Each sentence of a window says why, and where in which passage."""
    passages = [pb.Passage(id=s.id, text=s.text, title=s.title) for s in (IBUPROFEN, AMOXICILLIN)]
    text = "Ibuprofen relieves pain and fever [1]. Adults may take 500 mg of ibuprofen every six hours."
    request = pb.CheckOutputRequest(
        request_id="r1", trace_id="t1", caller={"tenant": "clinic"}, text=text, origin=pb.ORIGIN_MODEL, passages=passages, final=True,
        require_grounding=True,
    )  # fmt: skip

    checked = await stub.CheckOutput(request, timeout=180)

    assert [sentence.kind for sentence in checked.sentences] == ["verbatim", "blended"]
    first, second = checked.sentences
    assert IBUPROFEN.text[first.evidence_start : first.evidence_end] == "Ibuprofen relieves pain and fever"
    assert "another document" in second.reason
    assert not checked.HasField("release")
