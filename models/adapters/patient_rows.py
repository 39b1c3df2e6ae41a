"""Patient questions with NIH passages, built from MedQuAD (CC BY 4.0)."""

import random
import re

from answer_rows import Document, Neighbours, assemble, content, sentences
from rows import DATA, Row, read_jsonl, share

SOURCE = "medquad"
TRAIN_ROWS, HELD_OUT_ROWS = 860, 140
_DEBRIS = re.compile(r"Phenotype Ontology|^These resources address|^Frequently Asked|MedlinePlus offer")
_FACET_WORDS = {
    "symptoms": {"symptoms", "signs", "include", "characterized", "experience"},
    "treatment": {"treatment", "treated", "treat", "therapy", "medicines", "surgery"},
    "causes": {"cause", "causes", "caused", "due", "result"},
    "genetic changes": {"mutations", "gene", "caused", "changes"},
    "inheritance": {"inherited", "pattern", "autosomal", "dominant", "recessive"},
    "frequency": {"people", "prevalence", "occurs", "affects", "common", "estimated"},
    "exams and tests": {"diagnosed", "diagnosis", "test", "tests", "exam"},
    "prevention": {"prevent", "prevention", "lower", "reduce", "avoid"},
    "outlook": {"prognosis", "outlook", "survival", "recover", "expectancy"},
    "susceptibility": {"risk", "likely", "higher", "factors"},
    "complications": {"complications", "lead", "problems"},
    "considerations": {"should", "avoid", "eating", "diet"},
}
_ASK = {
    "information": ["What is {x}?", "Can you tell me what {x} is?", "Do you have information about {x}?"],
    "symptoms": ["What are the symptoms of {x}?", "How do I know if I have {x}?", "What signs does {x} cause?"],
    "treatment": ["How is {x} treated?", "What are the treatments for {x}?", "What can be done about {x}?"],
    "causes": ["What causes {x}?", "Why do people get {x}?"],
    "genetic changes": ["Which genetic changes are related to {x}?", "What gene causes {x}?"],
    "inheritance": ["Is {x} inherited?", "Can {x} be passed on in a family?"],
    "frequency": ["How many people have {x}?", "How common is {x}?"],
    "exams and tests": ["How is {x} diagnosed?", "Which tests are used for {x}?"],
    "prevention": ["How can I prevent {x}?", "Can {x} be prevented?"],
    "outlook": ["What is the outlook for {x}?", "What happens in the long run with {x}?"],
    "susceptibility": ["Who is at risk for {x}?", "Who gets {x}?"],
    "complications": ["What are the complications of {x}?", "What problems can {x} lead to?"],
    "considerations": ["What should I know about living with {x}?", "What should I eat or avoid with {x}?"],
}
_GREETINGS = ["Hello, ", "Hi doctor. ", "Quick question: ", "My mother asked me: "]


def load_documents() -> list[Document]:
    """Return the MedQuAD answers of the facets that have a question form, without list debris."""
    documents = []
    for record in read_jsonl(DATA / "retrieval/medquad/corpus.jsonl.gz"):
        meta = record["metadata"]
        subject = re.sub(r"\s+", " ", meta["focus"]).strip()
        text = re.sub(r"^(Summary :|Key Points)\s*", "", record["text"]).strip()
        text = re.sub(r"^(?:(?:What|How|Is|Who|Can|Are)\b[^.?]{5,120}\?\s*)+", "", text)
        if meta["qtype"] not in _ASK or len(text.split()) < 8 or text.startswith("-") or _DEBRIS.search(text):
            continue
        documents.append(Document(record["_id"], subject, text, subject.lower(), meta["qtype"]))
    return documents


def title_of(document: Document, rng: random.Random) -> str:
    """Return the bare subject, the subject with its facet, or the question as NIH titles it."""
    asked = _ASK[document.facet][0].format(x=document.title)
    return rng.choice([document.title, document.title, f"{document.title}: {document.facet}", asked])


def passage(document: Document, rng: random.Random) -> list[str]:
    """Return the first sentences of a document, up to a word budget drawn for this row."""
    budget = rng.choice([25, 35, 45, 60, 110])
    kept: list[str] = []
    for sentence in sentences(document.text):
        if kept and sum(len(s.split()) for s in kept) + len(sentence.split()) > budget:
            break
        kept.append(sentence)
    return kept


def answer(question: str, document: Document, shown: list[str]) -> list[str]:
    """Return the one or two shown sentences that serve the question best, in their order."""
    wanted = content(question) | _FACET_WORDS.get(document.facet, set())

    def rank(index: int) -> float:
        return len(wanted & content(shown[index])) - 0.7 * index

    usable = [i for i, s in enumerate(shown) if 6 <= len(s.split()) <= 32 and " - " not in s and "?" not in s]
    best = sorted(usable, key=rank, reverse=True)[:2]
    if len(best) == 2 and rank(best[1]) < 0.2 and len(shown[best[0]].split()) > 12:
        best = best[:1]
    return [shown[index] for index in sorted(best)]


def _distractors(document: Document, near: Neighbours, pool: list[Document], count: int, rng: random.Random) -> list[tuple[str, str]]:
    others = near.near(document, same_subject=False)
    same = [d for d in near.near(document, same_subject=True) if d.facet not in {document.facet, "information"}]
    candidates = [rng.choice(others)] if others and rng.random() < 0.7 else []
    if same and rng.random() < 0.4:
        candidates.append(rng.choice(same))
    candidates += rng.sample(pool, 3)
    shown = [(title_of(d, rng), " ".join(passage(d, rng))) for d in candidates if d.id != document.id]
    return [(title, text) for title, text in shown if len(text.split()) <= 130][:count]


def _row(document: Document, near: Neighbours, pool: list[Document]) -> Row | None:
    rng = random.Random(document.id)
    question = rng.choice(_ASK[document.facet]).format(x=document.title)
    shown = passage(document, rng)
    reply = answer(question, document, shown)
    answerable = rng.random() >= 0.22
    if answerable and (not reply or len(" ".join(shown).split()) > 130):
        return None
    if rng.random() < 0.15:
        question = rng.choice(_GREETINGS) + question
    count = rng.choice([0, 1, 1, 2, 2]) if answerable else rng.choice([1, 2, 2, 3, 3])
    return assemble(
        key=f"medquad-{document.id}",
        source=SOURCE,
        group=document.subject,
        question=question,
        gold=(title_of(document, rng), " ".join(shown)) if answerable else None,
        answer=reply,
        distractors=_distractors(document, near, pool, count, rng),
        rng=rng,
    )


def build() -> tuple[list[Row], list[Row]]:
    """Return train and held-out rows; a disease is wholly on one side, distractors included."""
    sides: tuple[list[Document], list[Document]] = ([], [])
    for document in load_documents():
        sides[share(document.subject, "patient-split") < 0.15].append(document)
    built = []
    for documents, limit in zip(sides, (TRAIN_ROWS, HELD_OUT_ROWS), strict=True):
        near, rows = Neighbours(documents), []
        for document in sorted(documents, key=lambda d: share(d.id, "patient-pick") ** (1 / _weight(d))):
            row = _row(document, near, documents)
            if row:
                rows.append(row)
            if len(rows) == limit:
                break
        built.append(rows)
    return built[0], built[1]


def _weight(document: Document) -> float:
    """Prefer common conditions over the long tail of rare genetic ones."""
    return 1.0 if document.id.startswith(("GHR", "GARD")) else 0.25
