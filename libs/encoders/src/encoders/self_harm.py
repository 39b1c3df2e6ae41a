"""Who speaks of harming themselves: words that are heard whatever a model makes of the text."""

import re
from bisect import bisect_left

_ONESELF = re.compile(r"\b(?:i|i['\u2019](?:m|ve|d|ll)|im|ive|me|my|myself)\b", re.IGNORECASE)
_SAID = re.compile(
    r"\b(?:(?:kill|hang|drown|harm|starv)(?:e|ing)? myself"
    r"|kill(?:ing)? (?:every(?:one|body)|them|him|her|you)\b[^.?!]{0,25}\bmyself|(?:end|ending|take|taking) my (?:own )?life"
    r"|(?:commit|committing|attempted) suicide|(?:i am|i['\u2019]?m|i feel|feeling) (?:so |really )?suicidal"
    r"|(?:i|been|started) self[- ]?harm(?:ing|ed)?|i (?:really |just )?(?:want|wanna) (?:to )?die|i wish i (?:was|were) dead"
    r"|(?:don['\u2019]?t|do not) (?:want to|wanna) (?:live|be alive|exist)|better off (?:dead|without me)|slit(?:ting)? my wrists?"
    r"|(?:i|i['\u2019](?:m|ve|d)|me|my)\b(?![^.?!]{0,80}\b(?:never|denie[sd]|don['\u2019]?t|not|no)\b)"
    r"[^.?!]{0,80}\bself[- ]?harm(?:ed|ing|s)?"
    r"|self[- ]?harm(?:ed|ing|s)?\b[^.?!]{0,60}\b(?:i|me|myself)|(?:cutting|slicing|burning|hurting|starving|scratching) myself"
    r"|(?:want|wish|hope|hoping|pray)\b[^.?!]{0,25}\b(?:not|never|don['\u2019]?t) wake up"
    r"|(?:wish for|wishing for|dream of|fantasies? of|thoughts? of) (?:my (?:own )?death|dying|killing myself)"
    r"|(?:want|going|ready|easy) to (?:just )?end it all)\b",
    re.IGNORECASE,
)
_TOPIC = re.compile(
    r"\b(?:self[- ]?(?:harm|injur|mutilat)\w*|suicid\w*|(?:kill|hang|starv|cut|harm|hurt)(?:s|ed|ing|ting)? myself"
    r"|anorexi[ac]\w*|bulimi[ac]\w*|my (?:ed|eating disorder)"
    r"|s/?h(?=\b[^a-z]*(?:urge|scar|clean|relapse|tool|isn|is|was|seems)))\b",
    re.IGNORECASE,
)
# Who writes about it, asks what it is, or says that it is not so.
_ABOUT = re.compile(
    r"\b(?:paper|article|essay|thesis|research\w*|study|studies|survey|statistics|prevention|polic(?:y|ies)|novel|movie|film|song|lyrics"
    r"|character|class|course|lecture|training|den(?:y|ies|ied)|no history|negative for|never|patients?|hotline|helpline|awareness"
    r"|definition|define|symptoms? of|treatments? (?:for|of)|causes? of|what (?:is|are)|information)\b",
    re.IGNORECASE,
)
# A wound alone is an accident; with what it is for, it is none.
_ACT = re.compile(
    r"\b(?:cut(?:s|ting)?|blades?|razors?|veins?|bloodlet\w*|burn(?:s|ing)?|wrists?|scratch\w*|bleed(?:ing)?|overdos\w*|headbang\w*"
    r"|gutting|flaying|purg(?:e|ing))\b",
    re.IGNORECASE,
)
_URGE = re.compile(
    r"\b(?:urges?|relaps\w*|clean(?! (?:it|the|my|this|up|water|wound))|calming|relief|satisf\w*|feels? good|felt good"
    r"|a (?:kind of )?high|endorphins|cop(?:e|ing)|tools?"
    r"|meaningless|therapist|fantas\w*|intrusive|triggers?|triggered)\b",
    re.IGNORECASE,
)


def speaks_of_self_harm(text: str) -> bool:
    """Return whether somebody says of themselves that they harm themselves, wish to, or wish to die."""
    if _SAID.search(text):
        return True
    if not _ONESELF.search(text) or _ABOUT.search(text):
        return False
    return _near(_TOPIC, _ONESELF, text, 80) or (_near(_ACT, _URGE, text, 140) and _near(_ACT, _ONESELF, text, 60))


def _near(one: re.Pattern[str], other: re.Pattern[str], text: str, characters: int) -> bool:
    """Return whether both begin within so many characters of each other."""
    places = [found.span() for found in other.finditer(text)]
    for found in one.finditer(text):
        at = bisect_left(places, (found.start() - characters, 0))
        # The two next ones: one of them may be the very same words.
        if any(start <= found.start() + characters and (start, end) != found.span() for start, end in places[at : at + 2]):
            return True
    return False
