"""Patient questions with NIH passages, built from MedQuAD (CC BY 4.0)."""

import random
import re

from answer_rows import Document, Neighbours, assemble, content, sentences, served
from rows import DATA, Row, read_jsonl, share

SOURCE = "medquad"
TRAIN_ROWS, HELD_OUT_ROWS = 1400, 140
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
    "information": [
        "What is {x}?",
        "Can you tell me what {x} is?",
        "Do you have information about {x}?",
        "I was told that I have {x}. What is it?",
        "My doctor mentioned {x}. What does that mean?",
    ],
    "symptoms": [
        "What are the symptoms of {x}?",
        "How do I know if I have {x}?",
        "What signs does {x} cause?",
        "I think my daughter may have {x}. What are the signs?",
        "What should I look out for with {x}?",
    ],
    "treatment": [
        "How is {x} treated?",
        "What are the treatments for {x}?",
        "What can be done about {x}?",
        "I have {x}. What helps?",
        "My husband has {x}. How is it treated?",
        "What can I take for {x}?",
    ],
    "causes": ["What causes {x}?", "Why do people get {x}?", "Why did I get {x}?"],
    "genetic changes": ["Which genetic changes are related to {x}?", "What gene causes {x}?"],
    "inheritance": ["Is {x} inherited?", "Can {x} be passed on in a family?"],
    "frequency": ["How many people have {x}?", "How common is {x}?"],
    "exams and tests": ["How is {x} diagnosed?", "Which tests are used for {x}?", "My doctor thinks I have {x}. How will it be checked?"],
    "prevention": ["How can I prevent {x}?", "Can {x} be prevented?", "How do I keep my children from getting {x}?"],
    "outlook": ["What is the outlook for {x}?", "What happens in the long run with {x}?", "I have {x}. What should I expect?"],
    "susceptibility": ["Who is at risk for {x}?", "Who gets {x}?", "Am I at risk of {x}?"],
    "complications": ["What are the complications of {x}?", "What problems can {x} lead to?", "I have {x}. What could go wrong?"],
    "considerations": [
        "What should I know about living with {x}?",
        "What should I eat or avoid with {x}?",
        "I have {x}. What should I do at home?",
    ],
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
    return rng.choice([document.title, f"{document.title}: {document.facet}", f"{document.title}: {document.facet}", asked])


def answer(question: str, document: Document, shown: list[str]) -> list[str]:
    """Return the one or two shown sentences that serve the question best, in their order."""
    wanted = content(question) | _FACET_WORDS.get(document.facet, set())

    def rank(index: int) -> float:
        return len(wanted & content(shown[index])) - 0.7 * index

    usable = [i for i, s in enumerate(shown) if 6 <= len(s.split()) <= 40 and " - " not in s and "?" not in s]
    best = sorted(usable, key=rank, reverse=True)[:2]
    if len(best) == 2 and rank(best[1]) < 0.2 and len(shown[best[0]].split()) > 12:
        best = best[:1]
    return [shown[index] for index in sorted(best)]


def _distractors(document: Document, near: Neighbours, pool: list[Document], rng: random.Random, *, answerable: bool) -> list[Document]:
    """Return other documents; where the answer is missing, mostly of the same disease, so that the name alone does not decide."""
    others = near.near(document, same_subject=False)
    same = [d for d in near.near(document, same_subject=True) if d.facet not in {document.facet, "information"}]
    candidates = rng.sample(same, min(len(same), 2)) if rng.random() < (0.5 if answerable else 0.7) else []
    candidates += rng.sample(others, min(len(others), 2)) if rng.random() < 0.8 else []
    return [*candidates, *rng.sample(pool, 2)]


def _row(document: Document, near: Neighbours, pool: list[Document]) -> Row | None:
    rng = random.Random(document.id)
    question = rng.choice(_ASK[document.facet]).format(x=document.title)
    answerable = rng.random() >= 0.2
    if rng.random() < 0.15:
        question = rng.choice(_GREETINGS) + question
    others = [
        d
        for d in _distractors(document, near, pool, rng, answerable=answerable)
        if (d.subject, d.facet) != (document.subject, document.facet)
    ]
    documents = ([document] if answerable else []) + others
    windows = served(question, [(d.id, title_of(d, rng), d.text) for d in {d.id: d for d in documents}.values()])
    mine = [(title, text) for name, title, text in windows if name == document.id]
    gold = max(mine, key=lambda part: len(content(question) & content(part[1])), default=None)
    reply = answer(question, document, sentences(gold[1])) if gold else []
    if answerable and not reply:
        return None
    rest = [(title, text) for _, title, text in windows if (title, text) != gold]
    return assemble(
        key=f"medquad-{document.id}",
        source=SOURCE,
        group=document.subject,
        question=question,
        gold=gold,
        answer=reply,
        distractors=rest[: rng.choice([0, 1, 2, 2, 2]) if gold else rng.choice([1, 2, 3, 3, 3])],
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
