"""Rewrites a parsed sentence so that it still follows from the original, or so that it no longer does."""
# ruff: noqa: SIM905 - long lists of words read best as text

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Doc = Any
Chance = random.Random

_LOOSE = {"relcl", "appos", "advcl", "npadvmod", "advmod", "amod", "prep", "acl", "parataxis"}
_CORE = set("nsubj nsubjpass aux auxpass neg dobj attr acomp dative agent prt oprd expl xcomp".split())
_BESIDE = set("relcl appos advcl acl punct cc conj parataxis ccomp npadvmod".split())
_HELPERS = set("is are was were do does did can could should will would has have may must".split())
_KEPT_WORDS = frozenset(
    (
        "not never no only few little less fewer without unless if hardly rarely former fake alleged possible potential "
        "likely unlikely suspected almost nearly against instead except neither nor unable fail failed fails"
    ).split()
)
_SYNONYMS = [
    pair.split("/")
    for pair in (
        "begin/start began/started large/big purchase/buy physician/doctor film/movie help/assist illness/disease "
        "important/significant shows/demonstrates showed/demonstrated often/frequently usually/commonly children/kids "
        "quickly/rapidly end/finish author/writer located/situated called/named however/but people/individuals "
        "obtain/get receive/get requires/needs require/need use/employ used/employed main/primary type/kind about/approximately "
        "created/made build/construct built/constructed begins/starts ends/finishes city/town near/close-to company/firm "
        "patients/people-with-the-disease symptoms/signs medicine/drug medication/medicine treatment/therapy cause/produce "
        "causes/leads-to happens/occurs happen/occur begin/commence difficult/hard entire/whole speak/talk famous/well-known "
        "child/kid woman/lady job/occupation rich/wealthy because/since over/more-than around/about several/multiple many/numerous "
        "died/passed-away born/given-birth won/gained released/published debuted/premiered attended/went-to portion/part"
    ).split()
]
_SAME: dict[str, str] = {}
for _one, _other in _SYNONYMS:
    _SAME.setdefault(_one, _other.replace("-", " "))
    _SAME.setdefault(_other, _one)
_OPPOSITES: dict[str, str] = {}
for _pair in (
    "increase/decrease increases/decreases increased/decreased higher/lower high/low more/fewer before/after first/last "
    "always/never positive/negative improve/worsen improves/worsens improved/worsened reduce/increase reduces/increases "
    "reduced/increased promotes/inhibits activates/inhibits above/below safe/dangerous allowed/prohibited include/exclude "
    "includes/excludes with/without start/stop best/worst larger/smaller older/younger major/minor male/female better/worse "
    "early/late earlier/later hot/cold left/right mother/father son/daughter brother/sister he/she his/her husband/wife "
    "north/south east/west northern/southern eastern/western common/rare most/least won/lost winner/loser success/failure "
    "successful/unsuccessful rise/fall rose/fell up/down begin/end began/ended open/closed new/old free/paid dead/alive born/died "
    "strong/weak long/short large/small big/small young/old long-term/short-term acute/chronic benign/malignant upper/lower "
    "inside/outside day/week days/weeks hours/days weeks/months months/years can/cannot may/cannot will/won't is/isn't are/aren't "
    "was/wasn't were/weren't has/lacks have/lack had/lacked all/none many/few some/no multiple/single both/neither accepted/rejected "
    "support/oppose supports/opposes supported/opposed approve/reject approved/rejected agree/refuse effective/ineffective "
    "possible/impossible legal/illegal domestic/foreign public/private rural/urban healthy/sick normal/abnormal "
    "american/british english/french actor/director singer/painter film/novel album/book song/film television/radio"
).split():
    _one, _other = _pair.split("/")
    _OPPOSITES.setdefault(_one, _other)
    _OPPOSITES.setdefault(_other, _one)
_STRONGER: Mapping[str, str] = {
    "may": "will", "might": "will", "can": "always", "could": "will", "some": "all", "many": "all", "most": "all", "often": "always",
    "usually": "always", "sometimes": "always", "commonly": "always", "suggest": "prove", "suggests": "proves", "suggested": "proved",
    "likely": "certain to", "possible": "proven", "associated": "caused", "linked": "caused", "several": "all", "rarely": "never",
    "about": "exactly", "approximately": "exactly", "nearly": "exactly", "potential": "proven", "probably": "certainly", "one": "the only",
}  # fmt: skip
_WORD_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_UNITS = {"mg": "milligrams", "%": " percent", "kg": "kilograms", "ml": "milliliters", "g": "grams"}
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_SWAPPABLE = {"NN", "NNS", "JJ", "VBD", "VBN", "VBZ", "VB", "VBG", "NNP"}
Pool = Mapping[str, Sequence[str]]


def tidy(text: str) -> str:
    """Return a sentence with one blank between words, a capital at its start and a full stop."""
    plain = re.sub(r"\s+([,.;:%)])", r"\1", " ".join(text.split())).strip(" ,;:-")
    plain = re.sub(r"\(\s*\)|\s,(?=,)", "", plain)
    plain = re.sub(r",\s*,", ",", plain).rstrip(" .,") + "."
    return plain[:1].upper() + plain[1:]


def _without(doc: Doc, gone: Iterable[int]) -> str:
    dropped = set(gone)
    return tidy("".join(token.text_with_ws for token in doc if token.i not in dropped))


def shortened(doc: Doc, chance: Chance) -> str | None:
    """Return the sentence without some modifiers, none of which turn its meaning round."""
    if any(token.lower_ in _KEPT_WORDS or token.dep_ == "neg" for token in doc):
        return None
    gone: set[int] = set()
    for token in doc:
        rate = 0.45 if token.dep_ in {"prep", "amod"} else 0.8
        subtree = {inner.i for inner in token.subtree}
        tied = token.head.lemma_ in {"be", "part", "member", "type", "kind", "one"}
        if token.dep_ in _LOOSE and not tied and len(subtree) < len(doc) * 0.7 and chance.random() < rate:
            gone |= subtree
    rest = len(doc) - len(gone)
    return _without(doc, gone) if gone and rest >= 5 and any(t.dep_ in {"nsubj", "nsubjpass"} and t.i not in gone for t in doc) else None


def extracted(doc: Doc, chance: Chance) -> str | None:
    """Return a fact that the sentence states by the way: an apposition, or the second of two verb phrases."""
    found = []
    for token in doc:
        head = token.head
        if token.dep_ == "appos" and head.pos_ == "PROPN":
            name = " ".join(t.text for t in head.subtree if t.i <= head.i)
            what = " ".join(t.text for t in token.subtree if t.i < token.i + 6)
            if what.split()[0].lower() in {"a", "an", "the"}:
                found.append(f"{name} is {what}")
        if token.dep_ == "conj" and token.pos_ == "VERB" and head.dep_ == "ROOT":
            subject = next((t for t in head.children if t.dep_ in {"nsubj", "nsubjpass"}), None)
            if subject is not None and not any(t.dep_ in {"nsubj", "aux", "auxpass", "neg"} for t in token.children):
                helpers = [t.text for t in head.children if t.dep_ in {"aux", "auxpass"}]
                verb = "".join(t.text_with_ws for t in token.subtree)
                found.append(f"{''.join(t.text_with_ws for t in subject.subtree)} {' '.join(helpers)} {verb}")
    return tidy(chance.choice(found)) if found else None


def core(doc: Doc, chance: Chance) -> str | None:
    """Return the main clause alone, with few of its modifiers."""
    root = next((token for token in doc if token.dep_ == "ROOT"), None)
    if root is None or root.pos_ not in {"VERB", "AUX"}:
        return None
    rate = chance.choice([0.2, 0.5, 0.8])
    whole = any(token.dep_ in {"dobj", "attr", "acomp"} for token in root.children)
    first = [t for t in root.children if t.dep_ in _CORE or (t.dep_ == "prep" and (not whole or chance.random() < rate))]
    found = {token.dep_ for token in first}
    if not found & {"nsubj", "nsubjpass"} or not found & {"dobj", "attr", "acomp", "prep", "agent", "xcomp", "oprd"}:
        return None
    kept, open_ = {root.i}, first
    while open_:
        token = open_.pop()
        kept.add(token.i)
        tied = token.pos_ == "ADP" or token.lemma_ in {"part", "one", "member", "type", "kind", "number"}
        open_ += [
            inner
            for inner in token.children
            if (inner.text == "-" or inner.dep_ not in _BESIDE) and (inner.dep_ != "prep" or tied or chance.random() < rate)
        ]
    if not 4 <= len(kept) <= 22:
        return None
    return tidy("".join(token.text + (token.whitespace_ or " " * (token.i + 1 not in kept)) for token in doc if token.i in kept))


def stated(doc: Doc) -> str | None:
    """Return a yes-or-no question as the statement that "yes" would make."""
    subject = next((t for t in doc if t.dep_ in {"nsubj", "nsubjpass"} and t.head.dep_ == "ROOT" and t.i), None)
    if doc[0].lower_ not in _HELPERS or subject is None:
        return None
    end = subject.right_edge.i + 1
    rest = doc[end:].text.rstrip(" ?.")
    return tidy(f"{doc[1:end].text} {doc[0].lower_} {rest}") if rest else None


def reworded(text: str, chance: Chance) -> str:
    """Return `text` with some words, numbers and units written in another way."""
    words = text.split(" ")
    for place, word in enumerate(words):
        plain = word.strip(",.;").lower()
        if plain in _SAME and chance.random() < 0.7:
            words[place] = word.lower().replace(plain, _SAME[plain])
        elif plain.isdigit() and int(plain) < len(_WORD_NUMBERS) and chance.random() < 0.3:
            words[place] = word.replace(plain, _WORD_NUMBERS[int(plain)])
        elif plain in _WORD_NUMBERS and chance.random() < 0.5:
            words[place] = word.lower().replace(plain, str(_WORD_NUMBERS.index(plain)))
        elif plain in _UNITS and chance.random() < 0.5:
            words[place] = word.replace(plain, _UNITS[plain].strip())
    return tidy(" ".join(words))


def _swap_word(text: str, old: str, new: str) -> str | None:
    changed = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text, count=1)
    return tidy(changed) if changed != text else None


def other_number(text: str, pool: Pool, chance: Chance) -> str | None:
    """Return `text` with one number changed, to one that stands nearby where there is one."""
    found = [match[0] for match in _NUMBER.finditer(text)]
    if not found:
        return None
    old = chance.choice(found)
    near = [number for number in pool["numbers"] if number != old and len(number) == len(old)]
    digits = old.replace(",", "")
    made = str(int(float(digits)) + chance.choice([1, 2, 5, 10, -1, -2])) if len(digits) < 7 else digits[::-1]
    return _swap_word(text, old, chance.choice(near) if near and chance.random() < 0.5 else made.lstrip("-"))


def opposite(text: str, pool: Pool, chance: Chance) -> str | None:
    """Return `text` with one word turned into its opposite."""
    del pool
    words = [word for word in re.findall(r"[A-Za-z'-]+", text) if word.lower() in _OPPOSITES]
    # "is" and "with" are everywhere; rarer words teach more.
    rare = [word for word in words if len(word) > 4]
    if not words or (not rare and chance.random() < 0.7):
        return None
    old = chance.choice(rare or words)
    return _swap_word(text, old, _OPPOSITES[old.lower()])


def negated(text: str, pool: Pool, chance: Chance) -> str | None:
    """Return `text` with a negation put in or taken out."""
    del pool
    if re.search(r"\bnot\b", text):
        return tidy(re.sub(r"\s*\bnot\b", "", text, count=1))
    verb = re.search(r"\b(is|are|was|were|can|may|should|will|must|has|have|had|does|do|did|could|would)\b", text)
    if verb is None:
        return None
    word = chance.choice(["not", "not", "never", "no longer"]) if verb[0] not in {"can", "may"} else "not"
    return tidy(text[: verb.end()] + f" {word}" + text[verb.end() :])


def stronger(text: str, pool: Pool, chance: Chance) -> str | None:
    """Return `text` with a quantifier or a modality that says more."""
    del pool
    words = [word for word in re.findall(r"[A-Za-z]+", text) if word.lower() in _STRONGER]
    if not words:
        return None
    old = chance.choice(words)
    new = _STRONGER[old.lower()]
    changed = _swap_word(text, old, new)
    return changed.replace("caused with", "caused by").replace("caused to", "caused by") if changed else None


def other_name(text: str, pool: Pool, chance: Chance) -> str | None:
    """Return `text` with one name in place of another, from the same passage where there is one."""
    names = [name for name in pool["names"] if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    near = [name for name in pool["names"] if name not in text and not any(part in text for part in name.split())]
    far = [name for name in pool["far_names"] if name not in text]
    others = near if near and chance.random() < 0.6 else far
    return _swap_word(text, chance.choice(names), chance.choice(others)) if names and others else None


def other_word(text: str, pool: Pool, chance: Chance) -> str | None:
    """Return `text` with a noun, verb or adjective replaced by another of its kind."""
    kinds = [kind for kind in sorted(_SWAPPABLE) if kind != "NNP" and pool.get(kind)]
    chance.shuffle(kinds)
    for kind in kinds:
        inside = [word for word in pool[kind] if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
        near = [word for word in pool[kind] if word not in text.lower()]
        far = [word for word in pool.get(f"far_{kind}", ()) if word not in text.lower()]
        others = near if near and chance.random() < 0.5 else far
        if inside and others:
            return _swap_word(text, chance.choice(inside), chance.choice(others))
    return None


def roles(doc: Doc) -> str | None:
    """Return the sentence with subject and object in each other's place."""
    for verb in doc:
        subject = next((t for t in verb.children if t.dep_ == "nsubj" and t.pos_ in {"NOUN", "PROPN"}), None)
        target = next((t for t in verb.children if t.dep_ in {"dobj", "attr"} and t.pos_ in {"NOUN", "PROPN"}), None)
        if verb.pos_ == "VERB" and subject is not None and target is not None:
            one = doc[subject.left_edge.i : subject.right_edge.i + 1]
            two = doc[target.left_edge.i : target.right_edge.i + 1]
            if one.end <= two.start and len(one) < 9 and len(two) < 12:
                middle = doc[one.end : two.start].text_with_ws
                return tidy(doc[: one.start].text_with_ws + f"{two.text} {middle}{one.text} " + doc[two.end :].text)
    return None


FAULTS: Mapping[str, Callable[[str, Pool, Chance], str | None]] = {
    "number": other_number,
    "opposite": opposite,
    "negation": negated,
    "stronger": stronger,
    "name": other_name,
    "word": other_word,
}


def pool_of(docs: Iterable[Doc]) -> dict[str, list[str]]:
    """Return names, numbers and words by their kind."""
    found: dict[str, list[str]] = {kind: [] for kind in _SWAPPABLE} | {"names": [], "numbers": []}
    for doc in docs:
        found["names"] += [e.text for e in doc.ents if e.label_ in {"PERSON", "ORG", "GPE", "LOC", "NORP", "WORK_OF_ART", "FAC", "PRODUCT"}]
        found["numbers"] += _NUMBER.findall(doc.text)
        for token in doc:
            if token.tag_ in found and token.is_alpha and token.is_lower and len(token) > 3 and not token.is_stop:
                found[token.tag_].append(token.text)
    return {kind: list(dict.fromkeys(words)) for kind, words in found.items()}
