"""Reads numbers, doses, percentages, dates and times in whatever way they are written, and finds those that no source has."""

# ruff: noqa: SIM905, RUF001 - a list of words reads best as a sentence, and people type curly signs

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import lru_cache

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()
NUMBER_WORDS = {word: value for value, word in enumerate(_WORDS)} | {
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100,
}  # fmt: skip
_MONTH_NAMES = (
    "jan/january feb/february mar/march apr/april may jun/june jul/july aug/august sep/sept/september oct/october nov/november dec/december"
)
_MONTHS = {name: place for place, names in enumerate(_MONTH_NAMES.split(), start=1) for name in names.split("/")}
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_FRACTIONS = {"½": "0.5", "¼": "0.25", "¾": "0.75"}


# Base unit, factor, and the names that it goes by.
_UNIT_ROWS = """
mg 1 mg mgs milligram milligrams milligramme
mg 1000 g gm grams gram gramme grammes
mg 1000000 kg kgs kilogram kilograms kilo kilos
mg 0.001 mcg µg μg ug microgram micrograms
mg 0.000001 ng nanogram nanograms
mg 453592 lb lbs pound pounds
mg 28349.5 oz ounce ounces
ml 1 ml mls cc milliliter milliliters millilitre millilitres
ml 1000 l liter liters litre litres
ml 100 dl deciliter deciliters
mm 1 mm millimeter millimeters millimetre millimetres
mm 10 cm centimeter centimeters centimetre centimetres
mm 1000 meter meters metre metres
mm 1000000 km kilometer kilometers kilometre kilometres
mm 25.4 inch inches
mm 304.8 ft foot feet
mm 1609344 mile miles
minute 1 min mins minute minutes
minute 60 h hr hrs hour hours
minute 1440 d day days
minute 10080 wk wks week weeks
minute 0.0166666667 sec secs second seconds
month 1 mo month months
month 12 yr yrs year years
month 120 decade decades
month 1200 century centuries
% 1 % percent per-cent pct percentage-points
$ 1 $ usd dollar dollars
€ 1 € eur euro euros
£ 1 £ gbp
tablet 1 tablet tablets pill pills
capsule 1 capsule capsules
drop 1 drop drops
puff 1 puff puffs
dose 1 dose doses
unit 1 unit units iu
time 1 time times
mmhg 1 mmhg
kcal 1 kcal calories calorie
bpm 1 bpm
point 1 point points
°c 1 °c celsius
°f 1 °f fahrenheit
mmol 1 mmol
meq 1 meq
teaspoon 1 teaspoon teaspoons tsp
tablespoon 1 tablespoon tablespoons tbsp
"""


def _unit_table() -> dict[str, tuple[str, Decimal]]:
    table: dict[str, tuple[str, Decimal]] = {}
    for row in _UNIT_ROWS.strip().splitlines():
        base, factor, *names = row.split()
        table |= {name.replace("-", " "): (base, Decimal(factor)) for name in names}
    return table


_UNITS = _unit_table()
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_UNIT = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True) if name not in "$€£")
_SPELLED = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
_DATES = (
    re.compile(r"\b(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})(?=T\d|\b)"),
    re.compile(rf"\b(?P<n>{_MONTH})\.?\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:\s*,\s*|\s+)(?P<y>\d{{4}})\b", re.IGNORECASE),
    re.compile(rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<n>{_MONTH})\.?(?:\s*,?\s*(?P<y>\d{{4}}))?\b", re.IGNORECASE),
    re.compile(rf"\b(?P<n>{_MONTH})\.?\s+(?P<y>\d{{4}})\b", re.IGNORECASE),
    re.compile(rf"\b(?P<n>{_MONTH})\.?\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s*(?:mg|%|percent))", re.IGNORECASE),
    re.compile(r"\b(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<y>\d{4}|\d{2})\b"),
)
_TIME = re.compile(r"\b(?P<h>\d{1,2})(?::(?P<min>\d{2}))?\s*(?P<half>[ap])\.?m\b\.?|\b(?P<h24>\d{1,2}):(?P<m24>\d{2})\b", re.IGNORECASE)
_PER = rf"(?:\s*/\s*|\s+(?:per|a|an|each|every)\s+)(?P<per>{_UNIT})\b|\s+(?P<daily>daily|hourly|weekly|monthly)\b"
_DIGITS = r"\d+(?:[,'\u00a0\u2009\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_MEASURE = re.compile(
    rf"(?<![\w.])(?P<sign>[$€£])?(?P<one>{_DIGITS})(?:\s*(?:-|–|to|and|or)\s*(?P<two>{_DIGITS}))?"
    rf"(?:\s+(?P<scale>thousand|million|billion))?(?:\s*+-?\s*+(?P<unit>{_UNIT})(?![a-z]))?(?:{_PER})?",
    re.IGNORECASE,
)
_WORDED = re.compile(
    rf"\b(?P<one>{_SPELLED})(?:[- ](?P<more>one|two|three|four|five|six|seven|eight|nine))?\s*+-?\s*+(?P<unit>{_UNIT})(?![a-z])",
    re.IGNORECASE,
)
# A month that stands alone; in small letters most are other words.
_MONTH_ALONE = re.compile(r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December)\b")
_YEAR = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d(?!\d)")
_NAME_NUMBER = re.compile(r"[A-Za-z]-?(\d+)")
_PERIODS = {"daily": "day", "hourly": "hour", "weekly": "week", "monthly": "month"}
_TIME_BASES = {"minute", "month"}
_MOST_YEARS = 40
_TIMES = {"once": "1", "twice": "2"}


@dataclass(frozen=True)
class Quantity:
    """One figure: its kind, its value in one spelling, and where it stands."""

    kind: str
    value: tuple[str, ...]
    text: str
    start: int
    end: int
    spelled: bool = False


@lru_cache(maxsize=512)
def quantities(text: str) -> tuple[Quantity, ...]:
    """Return dates, times, measures, percentages and bare numbers in order; each character belongs to one of them."""
    folded = text
    for sign, value in _FRACTIONS.items():
        folded = folded.replace(sign, value)
    taken: list[tuple[int, int]] = []
    found = [*_dates(folded, taken), *_times(folded, taken), *_measures(folded, taken)]
    return tuple(sorted(found, key=lambda quantity: quantity.start))


def _free(taken: list[tuple[int, int]], start: int, end: int) -> bool:
    return all(end <= low or start >= high for low, high in taken)


def _dates(text: str, taken: list[tuple[int, int]]) -> Iterable[Quantity]:
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if not _free(taken, *match.span()):
                continue
            part = match.groupdict()
            year = _year(part.get("y"))
            if part.get("a"):
                options = [(year, int(part["a"]), int(part["b"])), (year, int(part["b"]), int(part["a"]))]
            else:
                month = _MONTHS[part["n"].lower()] if part.get("n") else int(part["m"])
                options = [(year, month, int(part["d"]) if part.get("d") else 0)]
            options = [(y, m, d) for y, m, d in options if 1 <= m <= 12 and d <= 31]
            if options:
                taken.append(match.span())
                value = tuple(f"{y:04d}-{m:02d}-{d:02d}" for y, m, d in dict.fromkeys(options))
                yield Quantity("date", value, match[0], *match.span())


def _year(text: str | None) -> int:
    if not text:
        return 0
    return int(text) if len(text) == 4 else 2000 + int(text)


def _times(text: str, taken: list[tuple[int, int]]) -> Iterable[Quantity]:
    for match in _TIME.finditer(text):
        if not _free(taken, *match.span()):
            continue
        hour, minute = int(match["h"] or match["h24"]), int(match["min"] or match["m24"] or 0)
        if match["half"]:
            hour = hour % 12 + (12 if match["half"].lower() == "p" else 0)
        if hour < 25 and minute < 60:
            taken.append(match.span())
            yield Quantity("time", (f"{hour % 24:02d}:{minute:02d}",), match[0], *match.span())


def _measures(text: str, taken: list[tuple[int, int]]) -> Iterable[Quantity]:
    for match in _MEASURE.finditer(text):
        if not _free(taken, *match.span()):
            continue
        taken.append(match.span())
        for name in ("one", "two"):
            if match[name]:
                # A range gives its unit to both of its ends.
                start = match.start(name)
                end = match.end() if name == "two" or not match["two"] else match.end(name)
                found = _measure(match, match[name], start, end)
                yield replace(found, value=(following,)) if name == "two" and (following := _season(match)) else found
    for match in _WORDED.finditer(text):
        if _free(taken, *match.span()):
            value = NUMBER_WORDS[match["one"].lower()] + (NUMBER_WORDS[match["more"].lower()] if match["more"] else 0)
            base, factor = _UNITS[match["unit"].lower()]
            yield Quantity("measure", (_canonical(Decimal(value) * factor), base, ""), match[0], *match.span(), spelled=True)


def _season(match: re.Match[str]) -> str | None:
    """Return the year that the second number of a range of two years in a row stands for: the "19" of "2018-19" is 2019."""
    one, two = match["one"], match["two"]
    if match["unit"] or not _YEAR.fullmatch(one) or not re.fullmatch(r"\d\d", two):
        return None
    return str(int(one) + 1) if int(two) == (int(one) + 1) % 100 else None


def _measure(match: re.Match[str], digits: str, start: int, end: int) -> Quantity:
    try:
        value = Decimal(re.sub(r"[,'\s]", "", digits))
    except InvalidOperation:
        value = Decimal(0)
    value *= _SCALES.get((match["scale"] or "").lower(), 1)
    unit = match["sign"] or (match["unit"] or "").lower()
    if not unit:
        return Quantity("number", (_canonical(value),), digits, start, start + len(digits))
    base, factor = _UNITS[unit]
    per = _PERIODS.get((match["daily"] or "").lower(), (match["per"] or "").lower())
    below = _UNITS[per][0] + str(_UNITS[per][1].normalize()) if per else ""
    kind = "percent" if base == "%" else "measure"
    return Quantity(
        kind, (_canonical(value * factor), base, below), match.string[match.start("sign") if match["sign"] else start : end], start, end
    )


def _canonical(value: Decimal) -> str:
    rounded = value.quantize(Decimal("0.000001")) if value < 10**12 else value
    return format(rounded.normalize(), "f")


class Figures:
    """Every figure of some texts, ready to be asked whether they hold another."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Read the texts once."""
        found = [quantity for text in texts for quantity in quantities(text)]
        self.dates = {value for q in found if q.kind == "date" for value in q.value}
        self._dated = frozenset[str]().union(*(_put_together(text) for text in texts))
        self._in_names = frozenset[str]().union(*(_numbers_in_names(text) for text in texts))
        self.times = {q.value[0] for q in found if q.kind == "time"}
        self.measures = {q.value for q in found if q.kind in {"measure", "percent"}}
        self.numbers = {q.value[0] for q in found if q.kind == "number"}
        parts = {part.lstrip("0") for value in self.dates for part in value.split("-")}
        hours = {str(int(value[:2])) for value in self.times} | {str((int(value[:2]) - 1) % 12 + 1) for value in self.times}
        raw = {_canonical(Decimal(digits.replace(",", ""))) for q in found for digits in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", q.text)}
        spelled = frozenset[str]().union(*(_spelled_numbers(text) for text in texts))
        words = {str(NUMBER_WORDS[word]) for word in spelled if word in NUMBER_WORDS}
        for word, count in _TIMES.items():
            if word in spelled:
                words.add(count)
                self.measures.add((count, "time", ""))
        self._spelling = {(q.kind, q.value): q.text.strip() for q in found if q.kind != "number" and not q.text.strip().isdigit()}
        self._loose = self.numbers | parts | hours | raw | words

    def hold(self, quantity: Quantity) -> bool:
        """Return whether the texts have this figure, in whatever spelling.

        A date may say less than theirs, and may take its year from elsewhere in a text that names its day or month without one.
        """
        if quantity.kind == "date":
            return any(_within(one, other) for one in quantity.value for other in self.dates) or not self._dated.isdisjoint(quantity.value)
        if quantity.kind == "time":
            return quantity.value[0] in self.times
        if quantity.kind == "number":
            return quantity.value[0] in self._loose
        value, base, per = quantity.value
        # A rate per time may be spelled out ("5 mg, twice a day"); a rate per weight or volume may not.
        loose = not per or any(per.startswith(name) for name in _TIME_BASES)
        found = [other for number, unit, other in self.measures if (number, unit) == (value, base)]
        return per in found or (loose and bool(found) and (not per or "" in found))

    def name(self, digits: str) -> bool:
        """Return whether some name in the texts ends in these digits, with a hyphen before them or not."""
        return digits in self._in_names

    def respelled(self, claim: str) -> str:
        """Return `claim` with its figures as the texts spell them, where they are the same."""
        for quantity in reversed(quantities(claim)):
            own = self._spelling.get((quantity.kind, quantity.value))
            if (
                own is not None
                and own.casefold() != quantity.text.strip().casefold()
                and claim[quantity.start : quantity.end] == quantity.text
            ):
                rest = quantity.text[len(quantity.text.rstrip()) :]
                claim = claim[: quantity.start] + own.rstrip(".") + rest + claim[quantity.end :]
        return claim


def _within(claim: str, source: str) -> bool:
    return all(not int(one) or one == other for one, other in zip(claim.split("-"), source.split("-"), strict=True))


@lru_cache(maxsize=512)
def _put_together(text: str) -> frozenset[str]:
    """Return the dates that a day or month without a year makes with each year of the same text."""
    dates = [q for q in quantities(text) if q.kind == "date"]
    bare = {value for q in dates for value in q.value if value.startswith("0000")}
    alone = [m[0].lower() for m in _MONTH_ALONE.finditer(text) if not any(q.start <= m.start() < q.end for q in dates)]
    days = bare | {f"{value[:7]}-00" for value in bare} | {f"0000-{_MONTHS[word]:02d}-00" for word in alone}
    years = sorted(set(_YEAR.findall(text)))[:_MOST_YEARS] if days else []
    return frozenset(year + day[4:] for year in years for day in days)


@lru_cache(maxsize=512)
def _spelled_numbers(text: str) -> frozenset[str]:
    return frozenset(word for word in re.findall(r"[a-z]+", text.lower()) if word in NUMBER_WORDS or word in _TIMES)


@lru_cache(maxsize=512)
def _numbers_in_names(text: str) -> frozenset[str]:
    return frozenset(_NAME_NUMBER.findall(text))


def _names(claim: str, quantity: Quantity) -> str | None:
    """Return the digits of a number that a hyphen ties to a word, as in "CTLA-4"."""
    before = claim[max(0, quantity.start - 2) : quantity.start]
    return quantity.text if quantity.kind == "number" and before[-1:] == "-" and before[:1].isalpha() else None


def missing(claim: str, figures: Figures) -> tuple[Quantity, ...]:
    """Return the figures of `claim` that the sources do not hold; "one" as a word is no figure."""
    return tuple(
        q
        for q in quantities(claim)
        if not figures.hold(q)
        and not (q.spelled and q.value[0] in {"1", _canonical(_UNITS["day"][1])})
        and not ((digits := _names(claim, q)) and figures.name(digits))
    )
