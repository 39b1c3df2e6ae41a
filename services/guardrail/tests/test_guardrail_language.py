"""The language of questions and answers: told where there is enough to go by, held to what a workflow declares."""

import subprocess
import sys

import pytest

from chassis.errors import InvalidArgumentError
from chassis.rpc import call
from guardrail.checks.base import Answer, Decision, Origin
from guardrail.checks.language import LanguageCheck
from guardrail.languages import language_of
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub

CALLER = Caller(tenant="clinic", role="app")
ENGLISH = "Adults may take 200 mg every 6 hours, but do not take it for more than 10 days [1]."
GERMAN = "Erwachsene dürfen alle 6 Stunden 200 mg nehmen, aber nicht länger als 10 Tage am Stück [1]."


def test_word_lists_come_without_the_rules_of_their_languages() -> None:
    """The first request does not wait seconds for tokenizers that nothing here uses."""
    code = "import sys; from guardrail.languages import language_of; language_of('what should I do about it'); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=180).stdout
    assert "guardrail.languages" in loaded
    assert "spacy" not in loaded


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        ("¿Puedo devolver los zapatos que compré la semana pasada sin el recibo?", "es"),
        ("Est-ce que je peux rendre les chaussures que j'ai achetées la semaine dernière ?", "fr"),
        ("Могу ли я вернуть обувь без чека?", "ru"),  # noqa: RUF001 - another script is what is tested
        ("Чи можу я повернути взуття без чека після покупки?", "uk"),
        ("領収書なしで靴を返品できますか。", "ja"),
        ("我可以在没有收据的情况下退鞋吗", "zh"),
        ("Ibuprofen 200 mg", ""),
        ("Order #W4817420, Zurich, S-0104", ""),
        ("<PERSON_1> asked about https://example.org/der-die-das", ""),
    ],
)
def test_a_language_is_told_by_script_and_function_words(text: str, code: str) -> None:
    """Names, numbers, addresses and pseudonyms are of no language."""
    assert language_of(text) == code


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (Answer(GERMAN, language="en", language_decision=Decision.REGENERATE), Decision.REGENERATE),
        (Answer("am Stück [1].", released=GERMAN[:-13], language="en", language_decision=Decision.BLOCK), Decision.BLOCK),
        (Answer(GERMAN, language="en"), Decision.ALLOW),
        (Answer(ENGLISH, language="en", language_decision=Decision.BLOCK), Decision.ALLOW),
        (Answer("Nein, leider nicht.", language="en", language_decision=Decision.BLOCK), Decision.ALLOW),
        (Answer(GERMAN, language="en", language_decision=Decision.BLOCK, origin=Origin.EXTRACT), Decision.ALLOW),
        (Answer(GERMAN, language_decision=Decision.BLOCK), Decision.ALLOW),
    ],
)
def test_another_language_leads_to_what_was_declared(answer: Answer, decision: Decision) -> None:
    """Nothing declared only reports; a short text, a quotation and the right language pass."""
    found = LanguageCheck().run(answer)
    assert found.decision is decision
    expected = "signal: de instead of en" if answer.language and answer.text == GERMAN and answer.by_model and not found.flagged else ""
    assert found.flagged or found.reason == expected


async def test_the_language_of_the_question_is_told_and_an_unknown_one_refused(stub: GuardrailServiceStub) -> None:
    """Screening names it for who wants answers in it; `Check` holds an output to a language."""
    asked = pb.CheckInputRequest(request_id="r1", trace_id="t1", caller=CALLER)
    asked.messages.add(role="user", content="Darf ich die Lampe ohne den Beleg zurückgeben?")
    assert (await call(stub.CheckInput, asked, timeout=180)).language == "de"
    texts = pb.CheckRequest(caller=CALLER, stage=pb.STAGE_OUTPUT, texts=[ENGLISH, GERMAN], checks=["language"], language="en")
    found = (await call(stub.Check, texts, timeout=180)).results
    assert [result.verdict.code for result in found] == ["", "wrong_language"]
    texts.language = "xx"
    with pytest.raises(InvalidArgumentError):
        await call(stub.Check, texts, timeout=180)
