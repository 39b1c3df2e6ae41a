"""Names of people where a sentence says that they are names, and texts that differ in nothing but a name made equal."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

import re
from collections.abc import Iterator

# Heads decide the same with any of the common short names; this one says nothing of gender or origin.
NEUTRAL = "Alex"
# Whoever writes more names than these writes something else in capitals.
_MOST = 6
_CONTRACTED = re.compile(r"['’](?:m|d|re|ve|ll|t)$")
_PSEUDONYM = re.compile(r"<PERSON_\d{1,4}>")
_WORD = r"(?=[\w'’-]*[a-zß-ž])[A-ZÀ-Ž][^\W\d_]*(?:['’-](?!s\b)[^\W\d_]+)*"
_NAME = rf"(?P<v>{_WORD}(?:[ \t]+(?:[A-Z]\.[ \t]*)?{_WORD}){{0,2}})"
_SHORT = rf"(?P<v>{_WORD}(?:[ \t]+{_WORD})?)"
_ENDS = (
    r"(?=\s*(?:$|[,.;:!?()\n—–-]|and\b|from\b|here\b|again\b|speaking\b|calling\b|writing\b|with\b|but\b|who\b|because\b|on\b|at\b|in\b"
    r"|(?:he|she|I|they|we)\b|\d))"
)
_KIN = (
    r"(?:wife|husband|partner|spouse|fianc[ée]e?|boyfriend|girlfriend|son|daughter|child|baby|boy|girl|kid|mother|father|mom|mum|dad|sister|brother"
    r"|aunt|uncle|cousin|nephew|niece|grand(?:mother|father|ma|pa|son|daughter)|friend|neighbou?r|room-?mate|boss|colleague|co-?worker|carer)"
)
_STARTS = r"(?:^|(?<=[.!?,;:\n—–])[ \t]*|(?<=[.!?,;:—–-][ \t]))"
_GREETS = r"(?i:hi|hello|hey|dear|good\s+(?:morning|afternoon|evening))"
_OWNED = (
    r"(?:prescriptions?|appointments?|refills?|medications?|orders?|parcels?|package|account|card|points|records?|file|chart|results?|labs?|name"
    r"|address|birthday|insurance|visit|surgery|wife|husband|son|daughter|mother|father|mom|dad|sister|brother)"
)
_THANKS = r"(?i:thanks|thank\s+you|thx|regards|wishes|cheers|sincerely|(?:best|yours|truly|love)(?=[,\n]))"
_CALLED = (
    r"(?i:my\s+(?:first\s+|full\s+|last\s+)?name(?:\s+is|['’]s)|(?:people|they|friends)\s+call\s+me|you\s+can\s+call\s+me|i\s+am\s+called)"
)
_NAMED = r"(?i:named|pt\.?\s+name|patient(?:\s+name)?|caller|on\s+behalf\s+of|(?:client|customer|member|name)\s*:)"
_PATTERNS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"\b{_CALLED}\s+{_NAME}",
        r"\b(?i:my\s+name(?:\s+is|['’]s))\s+(?P<v>[a-zß-ž]{2,}(?:\s(?!(?:and|my|i|but|from|on|not|in|the)\b)[a-zß-ž]{2,})?)",
        rf"\b(?i:i\s+am|i['’]?m|this\s+is|it\s+is|it['’]s)\s+{_NAME}{_ENDS}",
        r"\b(?i:this\s+is)\s+(?P<v>[a-zß-ž]{2,})(?=\s+(?:here|speaking|calling)\b)",
        rf"{_STARTS}{_SHORT}(?=[ \t]+(?:here|speaking|calling|again)\b[ \t]*(?:[,.;:!—–-]|$|(?:and|with|from|about|for|to)\b))",
        rf"\b(?:Dr|Mr|Mrs|Ms|Mx|Miss|Prof|Nurse|Professor|Doctor|Mister)\b\.?\s+{_NAME}",
        rf"\b(?i:my|our|his|her|their)\s+(?:\w+[ -]){{0,2}}(?i:{_KIN}),?\s+(?:is\s+called\s+|named\s+)?{_NAME}",
        rf"\b{_NAMED}(?:\s*+:)?\s++{_NAME}{_ENDS}",
        rf"\b(?i:(?:under|to|for|in)\s+the\s+name(?:\s+of)?|(?:registered|booked|listed|filed|placed)\s+(?:under|for))\s+{_NAME}",
        rf"{_STARTS}{_GREETS}[ \t]+{_SHORT}(?=[ \t]*[,.!\n])",
        rf"\b{_THANKS}[,.!]?[ \t]*+\n?[ \t]*+[—–-]?[ \t]*+{_NAME}[ \t]*+[.!]?[ \t]*+$",
        rf"[.!?]\s*+[—–-]?[ \t]*+{_NAME}\s*+\Z",
        rf"(?<![\w’'-]){_SHORT}(?=['’]s[ \t]+(?:\w+[ \t]+)?{_OWNED}\b)",
    )
)
# Words that people write with a capital letter where a name could stand.
_NO_NAMES_TEXT = """
all am an and any anyone are as at but can could customer customers dear doctor dr everybody everyone for from good guys happy he
hello help her here hey hi his how i if in is it just ladies ma madam me miss mr mrs ms my myself no not nobody nurse ok okay
on only one or our patient please portal prof record records rather really regards she since sir so some somebody someone sorry
still support sure team thank thanks that the their them then there these they this those to today tomorrow too tonight urgent us
we well what when where which who why with would yes yesterday you your yours january february march july
september october november december monday tuesday wednesday thursday friday saturday sunday english spanish french german italian
chinese japanese korean arabic hindi portuguese russian american british canadian mexican african asian european hispanic latino
latina black white christian muslim jewish hindu buddhist catholic protestant atheist diabetic pregnant allergic asthmatic new
member prime premium gold silver platinum type grade class stage phase vitamin agent assistant bot admin administrator staff
manager reception desk service pharmacy clinic hospital store shop company ignore disregard forget override bypass previous
instructions instruction system prompt developer mode act pretend answer reveal print repeat being click come difficulty enter
find generally keep look log native never out over people problems read register right see sign start stop tap trouble try visit
without covid flu medicare medicaid blue cross christmas easter ramadan
"""
_NO_NAMES = frozenset(_NO_NAMES_TEXT.split())


def names_in(text: str) -> list[tuple[int, int]]:
    """Return half-open spans of what stands where names stand, without overlaps, in order."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted(set(_candidates(text)), key=lambda span: (span[0], -span[1])):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))
    return spans


def without_names(text: str) -> str:
    """Return `text` with one neutral name in the place of each pseudonym of a person and of each name that is introduced as one.

    The same name elsewhere in the text is replaced too; texts with many of them stay as they are, but for pseudonyms.
    """
    plain = _PSEUDONYM.sub(NEUTRAL, text)
    names = {plain[start:end] for start, end in names_in(plain)} - {NEUTRAL}
    if not names or len(names) > _MOST:
        return plain
    listed = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)(?:{listed})(?!\w)", NEUTRAL, plain)


def plausible(name: str) -> bool:
    """Return whether no word of a name is one that sentences have in its place."""
    return not any(word.strip(".").lower() in _NO_NAMES or _CONTRACTED.search(word) for word in name.split())


def _candidates(text: str) -> Iterator[tuple[int, int]]:
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            start, end = match.span("v")
            while start < end and not plausible(text[start:end]):
                # "my wife Aisha Please": what comes first may still be a name.
                cut = text.rfind(" ", start, end)
                end = max(start, cut)
            if start < end:
                yield start, end
