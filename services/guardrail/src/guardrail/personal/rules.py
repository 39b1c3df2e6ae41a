"""The patterns of personal data that need no model: identifiers, contacts, addresses, dates and introduced names."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

import re
from collections.abc import Callable
from dataclasses import dataclass

from guardrail.personal import european
from guardrail.personal.peoples import COUNTRIES, PEOPLES

# No quantifier may run over the same characters from many places: whoever writes a text chooses how long it is.
NAME = r"[A-ZÀ-Ž][\w'’-]{1,40}"
MONTHS = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?"
    r"|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
DATE = (
    rf"(?:{MONTHS}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+(?:\d{{4}}|['’]\d{{2}}))?"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTHS}\.?(?:,?\s+\d{{4}})?"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[ T]\d{2}:\d{2}(?::\d{2})?)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})\b)"
)
_CODE = r"#?(?=[A-Z0-9-]{0,40}\d)[A-Z0-9]{1,40}(?:-[A-Z0-9]{1,40}){0,6}"
_IS = r"(?:\s*+(?:number|no\.?|num\.?|nr\.?|id|code|policy|plan|#)(?![\w-])){0,4}\s*+(?:is|was|:|=|of)?\s*+:?\s*+"
_MBI = "[AC-HJKMNP-RT-Y]"
_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Way|Place|Pl|Square|Sq|Terrace|Parkway|Pkwy"
    r"|Highway|Hwy|Circle|Crescent|Trail|Hill|Crossroad)"
)
_UNIT = r"(?:Apt\.?|Apartment|Suite|Ste\.?|Unit|Flat)\s*#?\d+[A-Za-z]?"
_TAIL = rf"(?:,?\s+{_UNIT})?(?:,\s*{NAME}(?:\s{NAME}){{0,2}})?(?:,?\s+[A-Z]{{2}})?(?:,?\s+\d{{5}}(?:-\d{{4}})?)?"
_EURO_STREET = r"(?:Rua|Rúa|Rue|Via|Avenida|Avenue|Calle|Camiño|ul\.|ulica|Boulevard)"
_EURO_ENDING = r"(?:straat|laan|gade|vej|katu|tie|gatan|vägen|weg|strasse|straße|plein|gata|vei|veien|dreef|tér|u\.)"
# Where the sentence goes on with something else, or another begins; what ends in a stop may be shortened.
_ADDRESS_ENDS = (
    r"\s+(?:after|in\s+case|because|when|while|since|but|is|was|has|takes?|and\s+(?:I|[a-z]+))\b|,\s+(?:s?he|I|they|we|it|but|so|who|which|please|and)\b"
    r"|(?<!\b(?:St|Rd|Dr|Ln|Ct|Pl|Sq|Mt|ul|No))(?<!\b(?:Ave|Apt|Ste|Str|Hwy|str))(?<!\bBlvd)(?<!\b[A-Z])\.\s+[A-Z]|\.$"
)
_RELATIVE = (
    r"(?:(?:grand|step)?(?:mother|father|ma|pa|mum|mom|dad)|gran(?:ny)?|nan(?:a|ny)?|aunt(?:ie)?|uncle"
    r"|wife|husband|sister|brother|neighbou?r|woman|man)"
)
_FACILITY = (
    r"(?:Clinic|Hospital|Medical\s+C(?:en)?te?r|Med(?:ical)?(?:\s+Ct(?:e)?r)?|Health(?:\s+(?:Care|Center|System))?|Infirmary|General|Sinai"
    r"|Presbyterian|Memorial|Hospice|Care\s+Center|Healthcare|Cancer\s+Center|Institute|University\s+Hospital)"
)


def luhn_valid(text: str) -> bool:
    """Return whether the digits of `text` end in the right check digit of a payment card."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return 12 <= len(digits) <= 19 and sum(doubled) % 10 == 0 and len(set(digits)) > 1


def nhs_valid(text: str) -> bool:
    """Return whether the digits of `text` are an NHS number with the right check digit."""
    digits = [int(c) for c in text if c.isdigit()]
    if len(digits) != 10:
        return False
    check = 11 - sum(d * w for d, w in zip(digits, range(10, 1, -1), strict=False)) % 11
    return digits[9] == (0 if check == 11 else check)


def npi_valid(text: str) -> bool:
    """Return whether the digits of `text` are a National Provider Identifier: Luhn over them behind 80840."""
    digits = "".join(c for c in text if c.isdigit())
    return len(digits) == 10 and digits[0] in "12" and luhn_valid("80840" + digits)


def dea_valid(text: str) -> bool:
    """Return whether `text` is a DEA registration number: two letters and seven digits, of which the last is the check digit."""
    digits = [int(c) for c in text if c.isdigit()]
    return len(digits) == 7 and (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]


def ssn_valid(text: str) -> bool:
    """Return whether a number with nothing said about it can be a social security or taxpayer number: no part of it is all zeros or 666."""
    digits = "".join(c for c in text if c.isdigit())
    return len(digits) == 9 and digits[:3] not in {"000", "666"} and digits[3:5] != "00" and digits[5:] != "0000"


def phone_like(text: str) -> bool:
    """Return whether `text` has as many digits as a phone number."""
    return 7 <= sum(c.isdigit() for c in text.split("x", maxsplit=1)[0]) <= 15


@dataclass(frozen=True)
class Rule:
    """One pattern; the group `v`, or the whole match, is of type `entity` if `valid` agrees."""

    entity: str
    pattern: re.Pattern[str]
    score: float = 0.9
    valid: Callable[[str], bool] | None = None


def _rule(entity: str, pattern: str, *, score: float = 0.9, exact: bool = False, valid: Callable[[str], bool] | None = None) -> Rule:
    return Rule(entity, re.compile(pattern, re.MULTILINE | (re.NOFLAG if exact else re.IGNORECASE)), score, valid)


_CONTACTS = (
    _rule("EMAIL", r"(?<![\w.+%'-])[\w.+%'-]+@[\w-]+(?:\.[\w-]+)+", score=1.0),
    _rule("EMAIL", r"[\w.+-]{1,64}\s?[(\[]\s?at\s?[)\]]\s?[\w-]{1,63}(?:(?:\s?[(\[]\s?dot\s?[)\]]\s?|\.)[\w-]{1,63}){1,5}"),
    _rule("CARD", r"(?<![\d.-])\d(?:[ -]?\d){11,18}(?![\d-])", score=0.95, valid=luhn_valid),
    _rule("CARD", r"\bcard(?:\s+(?:number|no\.?))?(?:\s+is|:)?\s+(?P<v>\d(?:[ -]?\d){11,18})(?!\d)", score=0.95),
    _rule("CARD", r"\bcard\b[^.?!\n]{0,40}?\b(?P<v>\d{4}(?:[ -]?\d{4}){2,3}(?:[ -]?\d{1,3})?)(?!\d)", score=0.9),
    _rule(
        "PHONE",
        r"(?:phone|call|tel|mobile|cell|desk|fax|contact|office)\w{0,12}[^\w(+]{0,3}(?:\w{1,24}[^\w(+]{1,12}){0,4}?"
        r"(?P<v>\+?\(?\d[\d ().-]{5,18}\d(?:\s?x\d{1,6})?)(?![\w-]{0,20}\d)",
        score=0.75,
        valid=phone_like,
    ),
    _rule(
        "PHONE",
        r"(?P<v>\+?\(?\d[\d ().-]{5,18}\d(?:\s?x\d{1,6})?)[ -]{1,6}(?:office|fax|mobile|home|work|cell)\b",
        score=0.75,
        valid=phone_like,
    ),
    _rule("PHONE", r"(?<![\w.-])(?:\+?1[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?:\s?x\d{1,6})?(?![\w-])", score=0.8),
    _rule("PHONE", r"(?<![\w.])\+\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{1,4}(?:x\d{1,6})?(?!\w)", score=0.85, valid=phone_like),
    _rule("PHONE", r"(?<![\w.-])00\d{1,3}[ .-](?:\(?\d{1,4}\)?[ .-]?){2,5}\d{1,4}(?:x\d{1,6})?(?!\w)", score=0.85, valid=phone_like),
)

_IDENTIFIERS = (
    _rule("SSN", r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", score=0.85, valid=ssn_valid),
    _rule("SSN", r"(?<![\d-])(?<!\d )\d{3} \d{2} \d{4}(?![\d-]| \d)", score=0.85, valid=ssn_valid),
    _rule("SSN", rf"\b(?:ssn|social security)\b{_IS}(?P<v>\d{{3}}[- .]?\d{{2}}[- .]?\d{{4}})(?!\d)", score=1.0),
    _rule("NPI", rf"\b(?:NPI|national\s+provider)\b{_IS}(?P<v>[12]\d{{9}})(?!\d)", score=1.0, valid=npi_valid),
    _rule("DEA", r"(?<![\w-])[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}(?![\w-])", score=0.95, exact=True, valid=dea_valid),
    _rule("NHS", rf"\bnhs\b{_IS}(?P<v>\d{{3}}[ -]?\d{{3}}[ -]?\d{{4}})(?!\d)", score=1.0, valid=nhs_valid),
    _rule(
        "MRN",
        rf"\b(?:MRN|med(?:ical)?\.?\s*rec(?:ord)?\.?|(?:patient|chart|record)(?=\s*(?:id|number|no\b|#)))\W{{0,3}}{_IS}(?P<v>{_CODE})\b",
        score=1.0,
    ),
    _rule(
        "HEALTH_PLAN",
        rf"\b(?:(?:health\s+|insurance\s+)(?:plan|policy)|insurance|ins\.?|plan|policy|beneficiary|HBN|HMO|medicare|medicaid)"
        rf"(?:'s)?\W{{0,3}}{_IS}(?P<v>(?=[A-Z0-9#-]{{0,40}}\d{{3}}){_CODE})\b",
        score=0.95,
    ),
    # A Medicare beneficiary identifier has letters between its digits.
    _rule("HEALTH_PLAN", rf"(?<![\w-])[1-9]{_MBI}[\d{_MBI[1:]}\d-?{_MBI}[\d{_MBI[1:]}\d-?{_MBI}{{2}}\d{{2}}(?![\w-])", exact=True),
    _rule("ACCOUNT", rf"\b(?:account|acct)\b\W{{0,3}}{_IS}(?P<v>(?=[A-Z0-9#-]{{0,40}}\d{{4}}){_CODE})\b", score=0.9),
    _rule(
        "ACCOUNT",
        r"\b(?:ID|identifier)\s*+(?:number|no\.?|#)?\s*+(?:is|:)\s*+(?P<v>(?=[A-Z0-9#-]{0,40}\d{4})#?[A-Z0-9]{1,40}(?:-[A-Z0-9]{1,40}){0,6})\b",
        score=0.8,
    ),
    _rule("LICENCE", rf"\b(?:passport|driver'?s?\s+licen[cs]e|licen[cs]e)\b\W{{0,3}}{_IS}(?P<v>(?=[A-Z0-9-]{{0,40}}\d{{4}}){_CODE})\b"),
    _rule(
        "BIRTH_DATE",
        rf"\b(?:born(?:\s+on)?|d\.?o\.?b\.?|date\s+of\s+birth|birth\s?da(?:y|te))\W{{0,3}}(?:is\s+|was\s+|on\s+)?(?P<v>{DATE})",
        score=1.0,
    ),
    _rule(
        "OLD_AGE",
        rf"\b(?:I\s+am|I['’]m|(?:s?he|who|patient|pt|{_RELATIVE})(?:\s+is|['’]s)|turn(?:s|ed|ing)?|aged?:?)\s+(?P<v>9\d|1[01]\d)"
        rf"(?=\s*(?:$|[.!?;,)](?!\d)|(?:years?|today|now|and|but|last|next|this|on|with|who|so|in\s+{MONTHS})\b))",
        score=0.8,
    ),
    _rule("OLD_AGE", r"\b(?:9\d|1[01]\d)(?=[\s-]?(?:years?[\s-]old|year-old|yo\b|y/o))", score=0.8),
)

_ADDRESSES = (
    _rule(
        "ADDRESS", rf"\b\d{{1,6}}[A-Za-z]?\s+(?:[NSEW]\.?\s+)?(?:{NAME}\s+|\d+(?:st|nd|rd|th)\s+){{1,4}}{_STREET}\b\.?{_TAIL}", exact=True
    ),
    _rule(
        "ADDRESS",
        rf"\b(?:\d{{1,6}}\s+)?{_EURO_STREET}\s+(?:[a-z]{{1,3}}\s+)*[A-ZÀ-Ž][^\d\n,?!]{{0,40}}\d{{1,5}}(?:,?\s*{_UNIT})?",
        score=0.85,
        exact=True,
    ),
    _rule("ADDRESS", rf"\b(?:\d{{1,6}}\s+)?P\.?\s?O\.?\s+Box\s+\d{{1,6}}(?:,?\s*{_UNIT})?", score=0.9),
    _rule("ADDRESS", rf"(?:\b\d{{1,6}}\s+)?\b[A-ZÀ-Ž][\wÀ-ž-]{{0,40}}{_EURO_ENDING}\s\d{{1,4}}\b(?:,?\s*{_UNIT})?", score=0.8, exact=True),
    _rule("ADDRESS", r"\b(?:PSC|Unit)\s\d+,?\sBox\s\d+\s+[AFD]PO\sA[AEP]\s\d{5}", score=1.0),
    _rule("ADDRESS", r"\bUS(?:S|NS|NV|CGC)\s[A-ZÀ-Ž][\w' -]{0,60}\s[AFD]PO\sA[AEP]\s\d{5}", score=1.0),
    _rule("ADDRESS", rf"\b{_UNIT}(?=\W|$)", score=0.7),
    _rule("ADDRESS", r"\bzip(?:\s?code)?\s*+(?:is|:)?\s*+(?P<v>\d{3,6}(?:-\d{4})?)\b", score=0.9),
    _rule("ADDRESS", r"(?<=\n)[> \t]*[A-ZÀ-Ž][\wÀ-ž'() -]{2,40}\s(?P<v>\d{4,6}(?:-\d{3,4})?)$", score=0.65, exact=True),
    _rule("ADDRESS", r"\b[A-ZÀ-Ž]{3,}\s(?:[A-Z]{2}|nan)\s(?P<v>\d{3,6}(?:[ -]\d{2,4})?)\b", score=0.65, exact=True),
    # What follows such a cue and holds a digit is an address, up to the end of the clause.
    _rule(
        "ADDRESS",
        r"(?i:\b(?:located\s+at|meet\s+(?:me|you)\s+at|(?:new\s+one|taxi|return|sent|ship(?:ped)?|deliver(?:ed)?|mail(?:ed)?)\s+(?:it\s+)?to"
        r"|address(?:\s+is|:|\?\s+it(?:\s+is|'s))|(?:lives?|living|reside[sd]?)\s+at)|following\?)\s+"
        rf"(?P<v>(?=[^?!]{{0,60}}\d)(?!Stores?\b|Shop\b|Branch\b|S-\d)(?=[\dA-ZÀ-Ž]|ul\.|apt\b)(?:(?!{_ADDRESS_ENDS})[^?!;]){{5,110}})",
        score=0.75,
        exact=True,
    ),
    _rule(
        "ADDRESS",
        rf"\b(?i:the\s+corner\s+of)\s+(?=[^.?!\n]{{0,60}}\d)[^.?!\n,]{{3,50}}?\s+and\s+{NAME}(?:\s+{NAME}){{0,3}}",
        score=0.85,
        exact=True,
    ),
    # The lines of a letterhead: a number, a street and what hangs below.
    _rule(
        "ADDRESS",
        rf"^>?[ \t]*\d{{2,6}}[ \t]+[^\d\n:@]{{3,40}}(?:\d[^\n:@]{{0,30}})?"
        rf"(?:\n>?[ \t]*(?:{_UNIT}|,|[A-ZÀ-ž][^\n:@\d]{{1,30}}\d{{0,6}}$)[^\n:@]{{0,30}}){{0,4}}",
        score=0.7,
    ),
)

_PEOPLE = (
    _rule("PERSON", r"(?<!\w)(?:dr|mr|mrs|ms)\.\s+[a-z][\w'-]+(?:\s[a-z]\.)?", score=0.8, exact=True),
    _rule(
        "PERSON",
        rf"\b(?:Dr|Mr|Mrs|Ms|Miss|Prof|Nurse)\b\.?\s+(?:[A-Z]\.\s*)?{NAME}(?:\s+(?:[A-Z]\.\s+)?{NAME})?(?:\s[A-Z]\.)?",
        score=0.9,
        exact=True,
    ),
    _rule(
        "PERSON",
        r"\b(?!Vitamin|Hepatitis|Type|Grade|Group|Factor|Class|Plan|Part|Stage|Phase|Schedule|Influenza|Figure|Table|Section|Appendix|Item"
        r"|Option|Exhibit|Unit|Dose|The|And|For)[A-Z][a-zà-ž'’-]+\s[A-Z]\.(?![A-Za-z])",
        score=0.85,
        exact=True,
    ),
    _rule(
        "PERSON",
        rf"\b(?i:my\s+name\s+is|name\s+is|people\s+call\s+me|my\s+name's)\s+(?P<v>{NAME}(?:\s+(?:[A-Z]\.\s*)?{NAME}){{0,2}})",
        score=0.95,
        exact=True,
    ),
    _rule("PERSON", r"\bmy name is\s+(?P<v>[a-z]{2,}(?:\s(?!and\b|my\b|i\b|but\b|from\b)[a-z]{2,})?)", score=0.8, exact=True),
    _rule(
        "PERSON",
        rf"\b(?:named|patient|pt\.?\s+name|I'm|I\sam|this\sis|(?:my|his|her|their)\s+(?:wife|husband|son|daughter|kid|friend|mother|father|boss|sister|brother))"
        rf"\s+(?P<v>{NAME}(?:\s+{NAME}){{1,2}})",
        score=0.7,
        exact=True,
    ),
    _rule("PERSON", rf"(?P<v>{NAME}\s+{NAME})(?=\s*[,(]\s*(?:DOB|D\.O\.B\.|MRN|SSN|born\b))", score=0.85, exact=True),
    _rule("PERSON", rf"\b(?:year-old|yo|y/o|male|female|man|woman|boy|girl|patient)\s*,\s*(?P<v>{NAME}\s+{NAME})", score=0.85, exact=True),
)

_SEEN = (
    r"(?:seen|treated|admitted|evaluated|consulted|presented|presenting|reviewed|surgery|operated"
    r"|hospitali[sz]ed|case|referred|appt|visited|done|currently)"
)
_QUASI = (
    _rule("DATE", rf"(?<![\w-]){DATE}(?!\w)", score=0.8),
    _rule("DATE", rf"\b(?:\d{{1,2}}-)?{MONTHS}[\s-]\d{{4}}\b", score=0.8),
    _rule("DATE", r"(?<=\son\s)\d{1,2}/\d{2}(?![\w/])", score=0.65),
    _rule(
        "FACILITY",
        rf"\b(?:(?:St\.|Mt\.|[A-ZÀ-Ž][\w'’]{{1,40}}|&)[\s-]{{1,4}}(?:of\s+)?){{1,5}}{_FACILITY}(?:\s+(?:at|in|of)\s+{NAME}(?:\s{NAME})?)?\b",
        score=0.75,
        exact=True,
    ),
    _rule("FACILITY", r"\bSt\.?\s[A-Z][a-z]+(?:'s|’s)(?:\s+[A-Z][a-z]+)?", score=0.75, exact=True),
    _rule(
        "LOCATION",
        rf"\b{_SEEN}\s+(?:[\w.]+\s+){{0,3}}?(?:at|to|from|in)\s+(?:the\s+|our\s+)?(?P<v>(?:[A-Z]{{3,6}}\b|{NAME}(?:\s+(?:&\s+)?{NAME}){{0,3}})"
        r"(?:\s+(?:downtown\s+)?(?:clinic|facility|office|center|med\s+center|hospital))?)",
        score=0.65,
        exact=True,
    ),
    _rule(
        "LOCATION",
        rf"\b(?:our|the)\s+(?P<v>(?:[A-Z]{{3,5}}|{NAME})(?:\s(?:downtown|{NAME})){{0,4}}\s(?:clinic|facility|office|branch|hospital))\b",
        score=0.65,
        exact=True,
    ),
    _rule("DATE_PART", r"\b(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|(?:19|20)\d{2})\b", score=0.65, exact=True),
    _rule(
        "AGE", r"\b(?:I\s+am|I'm|he's|she's|turn(?:s|ed|ing)?|age[ds]?|is)\s+(?P<v>\d{1,3})(?=\s*(?:$|[.!?,]|years?\b|today))", score=0.65
    ),
    _rule("AGE", r"(?<!\d)\d{1,3}(?=[\s-]?(?:years?[\s-]old|year[\s-]olds|y/o|yo\b|y\.o\.))", score=0.65),
    _rule("URL", r"(?<![\w@])(?:https?://|www\.)[\w-]+(?:\.[\w-]+)+(?::\d+)?(?:/[^\s<>\"')]*)?", score=0.8),
    Rule("NATIONALITY", PEOPLES, 0.65),
    Rule("LOCATION", COUNTRIES, 0.65),
    # A customer's own numbers: told to whoever keeps a record, left in the prompt because tools need them.
    _rule(
        "ORDER",
        r"\b(?:order|shipment|invoice|receipt)\b(?:\s++(?:number|no\.?|id))?\s*+(?:is|:)?\s*+(?P<v>#?(?=[A-Z]{0,3}-?\d{5})[A-Z]{0,3}-?\d{5,12})\b",
    ),
    _rule("ORDER", r"(?<!\w)#[A-Z]{0,2}\d{6,12}\b"),
    _rule(
        "LOYALTY",
        r"\b(?:loyalty|member(?:ship)?|rewards?)\b(?:\s++(?:card|number|no\.?|id|account)){0,4}\s*+(?:is|:)?\s*+(?P<v>#?(?=[A-Z]{0,3}-?\d{5})[A-Z]{0,3}-?\d{5,12})\b",
    ),
    _rule("LOYALTY", r"(?<![\w-])M-\d{6}\b", exact=True),
)

_EUROPEAN = (
    *(_rule(entity, pattern, exact=True, valid=valid) for entity, pattern, valid in european.IDENTIFIERS),
    *(_rule("PHONE", pattern, score=0.75, exact=True, valid=european.trunk_like) for pattern in european.PHONES),
    *(_rule("ADDRESS", pattern, score=0.85, exact=True) for pattern in european.ADDRESSES),
    _rule("BIRTH_DATE", european.BORN, score=1.0, exact=True),
    _rule("PERSON", european.INTRODUCED, score=0.95, exact=True),
    _rule("DATE", rf"(?<![\w-]){european.DATE}", score=0.8, exact=True),
)

RULES: tuple[Rule, ...] = (*_CONTACTS, *_IDENTIFIERS, *_ADDRESSES, *_PEOPLE, *_QUASI, *_EUROPEAN)
