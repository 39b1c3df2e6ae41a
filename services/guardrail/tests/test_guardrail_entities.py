"""Entities are read off the recogniser's weights as its own parser reads them."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from guardrail.personal.entities import EntityDecoder
from guardrail.personal.recognizers import analyzer

ROOT = Path(__file__).parents[3]
TEXTS = [
    "", " ", "\n\n", "John", "Angela Maria Whitfield-Jones", "John Smith\n\nMary   Jones  \n", "Dear Mr\n\n Smith",
    "Ship it to 42 Maple Street, Springfield, IL 62704 and call Bob O'Neill of Baker & Sons Ltd in New York City",
    "My doctor, Dr. Priya Raghunathan of St. Mary's Hospital in Leeds, moved to Berlin. Ask Wei Chen or Fatima al-Sayed.",
]  # fmt: skip


def _texts() -> list[str]:
    with gzip.open(ROOT / "domains/healthcare/documents/nih-answers.jsonl.gz", "rt") as file:
        answers = [json.loads(line)["text"][:800] for line in itertools.islice(file, 40)]
    return TEXTS + [f"{text} {answer}" for text, answer in zip(itertools.cycle(TEXTS), answers, strict=False)]


def test_entities_are_those_of_the_parser() -> None:
    """On every text, with entities of many tokens, at the end and beside blanks, both say the same."""
    nlp = analyzer(ROOT / "models" / "personal").nlp_engine.nlp["en"]
    parser = nlp.get_pipe("ner")
    decoder, found = EntityDecoder(parser), 0

    for text in _texts():
        expected = [(e.start, e.end, e.label_) for e in parser(nlp.make_doc(text)).ents]
        found += len(expected)
        assert [(e.start, e.end, e.label_) for e in decoder.entities(nlp.make_doc(text))] == expected

    assert found > 80


def test_another_kind_of_parser_is_refused() -> None:
    """A parser that searches with a beam decides otherwise: it is not silently read as a greedy one."""
    parser = analyzer(ROOT / "models" / "personal").nlp_engine.nlp["en"].get_pipe("ner")
    parser.cfg["beam_width"] = 4
    try:
        with pytest.raises(ValueError, match="greedy"):
            EntityDecoder(parser)
    finally:
        parser.cfg["beam_width"] = 1
