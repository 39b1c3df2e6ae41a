"""The suite `generation` of `strata eval`: schema, grounding, abstention and citations of whole answers."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chassis.json_schemas import Schema, SchemaRefusedError, ValidationError
from chassis.settings import load as load_settings
from encoders import Encoder
from encoders.evaluation import Indices, Outcome, Row, RowError, read_rows
from encoders.grounding import SupportScorer
from encoders.sentences import split_sentences
from inference import prompts
from inference.evaluation.runs import Measures, check_messages, generated, report, run, turns, versions_of
from inference.evaluation.serving import serving
from inference.generation import ModelGateway
from inference.prompts import Prompt
from inference.providers.base import Job
from inference.settings import Settings

JUDGE = "rouge-l"
_PROMPT = "patient-answer@v1"
_MAX_TOKENS = 256
_MAX_CHARACTERS = 200_000
_ABSTAINS = "could not find this in the available documents"
_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


@dataclass(frozen=True)
class AnswerScore:
    """What is right about one answer; None where the row does not ask for it."""

    schema_valid: bool | None
    grounded: bool | None
    abstained: bool | None
    citations_valid: bool | None
    likeness: float | None


def generation(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score answers of a tier (option `tier`), those over `context` by a prompt and its adapter (options `prompt`, `adapter`)."""
    rows = read_rows(data, {"messages": check_messages})
    _check(data, rows)
    settings = load_settings(Settings)
    name = options.get("prompt", _PROMPT)
    prompt = prompts.load(settings.repository_dir / "domains").get(name)
    scorer = SupportScorer.load(settings.repository_dir / "models" / "grounding", Encoder.load())
    with serving(settings, options) as config:
        adapter = options.get("adapter", name if name in config.adapters else "")

        async def judge(gateway: ModelGateway, row: Row) -> AnswerScore:
            over = bool(row.get("context")) and "schema" not in row
            job = _answering(prompt, row) if over else Job(turns(row), _MAX_TOKENS, schema=row.get("schema"))
            result = await generated(gateway, {**options, "adapter": adapter if over else ""}, job)
            return await asyncio.to_thread(score, row, result.text if result else "", scorer)

        outcome, seconds = asyncio.run(run(config, settings, rows, judge))
    versions = versions_of(config, options) | {"prompt": name, "adapter": adapter, "grounding": scorer.version}
    return _report(outcome, seconds, versions) | {"judge": JUDGE}


def _answering(prompt: Prompt, row: Row) -> Job:
    asked = next((turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user"), "")
    passages = [{"n": number, "title": "Document", "text": text} for number, text in enumerate(row["context"], 1)]
    messages = prompt.render({"passages": passages, "question": asked}, max_characters=_MAX_CHARACTERS)
    return Job(tuple(messages), prompt.max_tokens, prompt.temperature)


def score(row: Row, text: str, scorer: SupportScorer) -> AnswerScore:
    """Judge one answer; an abstention is neither grounded nor ungrounded."""
    context: Sequence[str] = row.get("context") or ()
    abstained = _ABSTAINS in text
    says = bool(context) and not abstained and "schema" not in row
    return AnswerScore(
        schema_valid=_matches(text, row["schema"]) if "schema" in row else None,
        grounded=_grounded(text, context, scorer) if says else None,
        abstained=abstained if context else None,
        citations_valid=_cites(text, len(context)) if says else None,
        likeness=rouge_l(text, row["reference"]) if "reference" in row else None,
    )


def _matches(text: str, schema: Any) -> bool:
    try:
        Schema(schema).validate(json.loads(text))
    except (ValueError, ValidationError):
        return False
    return True


def _grounded(text: str, context: Sequence[str], scorer: SupportScorer) -> bool:
    claims = [sentence for sentence in split_sentences(text) if _words(_CITATION.sub("", sentence))]
    return bool(claims) and all(found.supported for found in scorer.score_all([(claim, context) for claim in claims]))


def _cites(text: str, passages: int) -> bool:
    numbers = [int(number) for group in _CITATION.findall(text) for number in group.split(",")]
    return bool(numbers) and all(1 <= number <= passages for number in numbers)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words (ROUGE-L, Lin 2004)."""
    ours, theirs = _words(text), _words(reference)
    if not ours or not theirs or not Counter(ours) & Counter(theirs):
        return 0.0
    row = [0] * (len(theirs) + 1)
    for word in ours:
        before = 0
        for place, other in enumerate(theirs, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return 2 * row[-1] / (len(ours) + len(theirs))


def _report(outcome: Outcome[AnswerScore], seconds: float, versions: Mapping[str, str]) -> dict[str, Any]:
    def mean_of(field: str) -> Any:
        values = np.array([np.nan if (value := getattr(one, field)) is None else float(value) for one in outcome.results])

        def measure(index: Indices) -> float | None:
            known = values[index][~np.isnan(values[index])]
            return float(known.mean()) if len(known) else None

        return measure

    measures: Measures = {
        "schema_valid": mean_of("schema_valid"),
        "grounded_rate": mean_of("grounded"),
        "abstain_rate": mean_of("abstained"),
        "citation_valid": mean_of("citations_valid"),
        "judge_score": mean_of("likeness"),
    }
    return report("generation", outcome, seconds, versions, measures)


def _check(data: Path, rows: Sequence[Row]) -> None:
    """Raise RowError for a field that may be left out and is wrong."""
    for number, row in enumerate(rows, 1):
        if "reference" in row and not isinstance(row["reference"], str):
            raise RowError(f"{data}: row {number}: field 'reference' must be a text")
        context = row.get("context", [])
        if not isinstance(context, list) or not all(isinstance(text, str) for text in context):
            raise RowError(f"{data}: row {number}: field 'context' must be a list of texts")
        if "schema" in row:
            try:
                Schema(row["schema"])
            except SchemaRefusedError as error:
                raise RowError(f"{data}: row {number}: field 'schema': {error}") from error
