"""Identifiers, addresses, dates and introductions of Britain, Germany, France, Spain and Italy, as people write them."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

_NAME = r"[A-ZÀ-Ž][\w'’-]{1,40}"
_TOWN = rf"(?:,?\s+(?:[A-Z]{{1,2}}-)?\d{{5}}\s+{_NAME}(?:[\s-]{_NAME}){{0,2}})?"
# The letters before the first digit of a postcode, by Royal Mail's areas.
_AREA = (
    r"(?:A[BL]|B[ABDHLNRST]?|C[ABFHMORTVW]|D[ADEGHLNTY]|E[CHNX]?|F[KY]|G[LUY]?|H[ADGPRSUX]|I[GMPV]|JE|K[ATWY]|L[ADELNSU]?|M[EKL]?"
    r"|N[EGNPRW]?|O[LX]|P[AEHLOR]|R[GHM]|S[AEGKLMNOPRSTWY]?|T[ADFNQRSW]|UB|W[ACDFNRSV]?|YO|ZE)"
)
# 4GB and 2TB behind the name of a telephone are none.
_POSTCODE = rf"{_AREA}\d[A-Z\d]?[ ]?(?!\dGB|\dTB|\dXL)\d[ABD-HJLNP-UW-Z]{{2}}"
_MONTH = (
    r"(?i:januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre"
    r"|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio"
    r"|giugno|luglio|settembre|ottobre|dicembre)"
)
DATE = rf"\d{{1,2}}(?:\.|er)?\s+(?:de\s+)?{_MONTH}\b(?:,?\s+(?:de[l]?\s+)?\d{{4}})?"
_ANY_DATE = rf"(?:{DATE}|\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2,4}})"
_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"


def dni_valid(text: str) -> bool:
    """Return whether `text` is a Spanish DNI or NIE with the right letter: the number modulo 23."""
    plain = "".join(c for c in text.upper() if c.isalnum())
    number = plain[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and plain[-1] == _DNI[int(number) % 23]


def nir_valid(text: str) -> bool:
    """Return whether the digits of `text` are a French social security number with the right key: 97 less the rest by 97."""
    digits = "".join(c for c in text if c.isdigit())
    return len(digits) == 15 and int(digits[13:]) == 97 - int(digits[:13]) % 97


def kvnr_valid(text: str) -> bool:
    """Return whether `text` is a German health insurance number with the right check digit: sums of digits weighted 1 and 2, modulo 10."""
    digits = [int(c) for c in f"{ord(text[0]) - ord('A') + 1:02d}{text[1:]}"]
    sums = (sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(digits[:-1]))
    return sum(sums) % 10 == digits[-1]


def trunk_like(text: str) -> bool:
    """Return whether `text` has as many digits as a number that is dialled within a country."""
    return 9 <= sum(c.isdigit() for c in text) <= 12


# (type, pattern, check): a national number takes the type of its American counterpart.
IDENTIFIERS = (
    # National Insurance.
    ("SSN", r"(?<![\w-])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?![\w-])", None),
    (
        "SSN",
        r"(?i:\b(?:national\s+insurance|NI|NINO)\b(?:\s+(?:number|no\.?))?(?:\s+is|:)?)\s+(?P<v>[A-Za-z]{2}(?: ?\d{2}){3} ?[A-Da-d])\b",
        None,
    ),
    ("SSN", r"(?<![\w-])(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z](?![\w-])", dni_valid),
    ("SSN", r"(?<!\d)[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3} ?\d{2}(?!\d)", nir_valid),
    ("SSN", r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z](?!\w)", None),
    ("HEALTH_PLAN", r"(?<![\w-])[A-Z]\d{9}(?![\w-])", kvnr_valid),
)
PHONES = (
    r"(?<![\w.,/+-])0[1-9](?P<s>[ .-])\d\d(?:(?P=s)\d\d){3}(?![\w-])",
    r"(?<![\w.,/+-])\(?0[1-9]\d{1,4}\)?(?: \d{2,8}){1,4}(?![\w:,.-]*\d)",
    r"(?<![\w.,/+-])0[1-9]\d{1,4}[/-]\d{5,8}(?![\w/-])",
)
ADDRESSES = (
    rf"(?<![\w-]){_POSTCODE}(?![\w-])",
    rf"(?i:\bpost\s?code\b(?:\s+is|:)?)\s+(?P<v>(?i:{_POSTCODE}))(?![\w-])",
    (
        rf"\b\d{{1,4}}(?:\s(?:bis|ter))?,?\s(?i:rue|avenue|av\.|boulevard|bd|place|chemin|allée|impasse|quai|route|cours)\s"
        rf"(?:[a-zà-ž]{{1,4}}(?:['’]|\s)){{0,3}}{_NAME}(?:[\s-]{_NAME}){{0,3}}{_TOWN}"
    ),
    (
        r"(?<![\w-])[A-ZÀ-Ž][\wÀ-ž-]{1,40}(?:straße|strasse|str\.|platz|allee|gasse|damm|ufer|[\s-](?:Straße|Str\.|Platz|Allee|Weg))"
        rf"\s\d{{1,4}}(?:\s?[a-z]\b)?{_TOWN}"
    ),
    rf"\b(?i:calle|avda\.|avenida|plaza|paseo)\s(?:(?:de|del|la|el|los|las)\s){{0,2}}{_NAME}(?:\s{_NAME}){{0,3}},?\s\d{{1,4}}{_TOWN}",
)
BORN = (
    r"(?i:\b(?:geboren(?:\s+am)?|geb\.|Geburtsdatum|née?\s+le|date\s+de\s+naissance|nacid[oa]\s+el|nací\s+el|fecha\s+de\s+nacimiento"
    rf"|nat[oa]\s+il))\W{{0,3}}(?:ist\s+|est\s+|es\s+)?(?P<v>{_ANY_DATE})"
)
INTRODUCED = (
    rf"(?i:\b(?:mein\s+Name\s+ist|ich\s+hei(?:ß|ss)e|je\s+m['’]appelle|mon\s+nom\s+est|me\s+llamo|mi\s+nombre\s+es|mi\s+chiamo))"
    rf"\s+(?P<v>{_NAME}(?:\s+{_NAME}){{0,2}})"
)
# Small words and greetings: what begins with one is a sentence, whatever a recogniser of English holds it for.
_WORDS_TEXT = """
je meine mein meiner meinen mich mir sie ihr ihre ihrer bitte guten hallo ich wir der das wie wann wo wer danke bonjour merci votre
quel quelle quels combien hola buenos buenas gracias cuál cómo dónde cuánto quiero necesito tengo können kann habe haben
"""
WORDS = frozenset(_WORDS_TEXT.split())
