"""What says of a user's text that it drops earlier orders, in ten languages, and how much of it is another language than English."""

import re

_DROP = (
    r"(?:forget|ignore|disregard|overlook|discard|vergiss|vergesse[nt]?|ignorier\w*|missachte\w*|olvid\w+|ignor[ae]\w*|descart\w+|oubli\w+"
    r"|n[ée]glige\w*|dimentic\w+|scorda\w*|esque[çc]\w+|desconsider\w+|zaboravi\w*|zanemari\w*|забуд\w*|игнориру\w*|zapomnij\w*|vergeet|negeer)"
)
_EARLIER = (
    r"(?:everything|anything|all|every|previous\w*|prior|earlier|above|preceding|before|instructions?|alles?|allen?|davor|vorher\w*|bisherig\w*"
    r"|obig\w*|anweisung\w*|aufgaben?|todo|todas?|todos|anterior\w*|instruc\w+|tout\w*|pr[ée]c[ée]dent\w*|consignes?|tutt\w+|preceden\w+"
    r"|istruzion\w+|tud\w+|instru[çc]\w+|prethodn\w+|sve|upute|вс[её]|инструкци\w*|предыдущ\w*|wszystk\w+|eerder\w*)"
)
# What people ask to leave aside in the same words: a letter of theirs, not orders.
_LETTER = (
    r"(?!\s+(?:\w+\s+)?(?:messages?|e-?mails?|mails?|letters?|orders?|questions?|requests?|tickets?|calls?|nachricht\w*|frage\w*"
    r"|mensaje\w*)\b)"
)
_DROPS = re.compile(rf"\b{_DROP}\b[^.?!\n]{{0,30}}?\b{_EARLIER}\b{_LETTER}", re.IGNORECASE)
_TELLS = re.compile(
    r"\b(?:i|we|you|he|she|they|ich|wir|didn't|did not|don't|do not|never|not|won't|can't|to)\s+(?:\w+\s+)?"
    r"(?:forget|ignore|discard|disregard|overlook)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
# Small words of German, French, Spanish, Italian, Portuguese, Dutch, Polish, Croatian and Russian that English does not have.
_OTHER_TEXT = """
der das und ist nicht ich ein eine einen einer zu den dem mit für auf wie ihr du sie wir mir mich von sich auch oder wenn kann
habe bei gerne
le les des est une pour dans que et un je vous nous avec sur pas qui ce cette mon ma mes sont
el los las por con una del como qué cómo mi su es en se lo al y más tengo puedo quiero
il di che non sono gli della nel ho mio mia ci posso vorrei anche
os um uma não com meu minha dos ao eu você como estou
het een niet ik en op te dat voor mijn
nie się na jest że czy jak mam moje
je da na za koji kako mogu želim
и в не на что я как по это мне для из
"""
_OTHER = frozenset(_OTHER_TEXT.split())
# Of running text in these languages a third and more are such words.
_USUAL = 0.25
_LEAST_WORDS = 6


def drops_orders(text: str) -> bool:
    """Return whether a text tells its reader to leave earlier orders aside."""
    return _DROPS.search(text) is not None and _TELLS.search(text) is None


def foreignness(text: str) -> float:
    """Return from 0 to 1 how much a text has the small words of other languages than English; 0 for one of fewer than six words."""
    words = _WORD.findall(text.lower())
    if len(words) < _LEAST_WORDS:
        return 0.0
    return min(1.0, sum(word in _OTHER for word in words) / len(words) / _USUAL)
