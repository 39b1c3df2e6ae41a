"""Whether tool calls are the right ones: names, arguments, and what may be left out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]
# Spelling that says nothing: "New York, NY" and "new york ny" are one place.
_SPELLING = re.compile(r"[\s,./\-_*^'\"]+")


@dataclass(frozen=True)
class Made:
    """A call that a model made."""

    name: str
    arguments: Arguments


@dataclass(frozen=True)
class Wanted:
    """A call that is right; each argument has the values that are, `""` among them where it may be left out."""

    name: str
    arguments: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class CallScore:
    """How the calls of one turn compare with those wanted; `right` and `stated` count arguments of calls with a right name."""

    all_right: bool
    names_right: bool
    right: int
    stated: int
    hallucinated: bool


def score(made: Sequence[Made], wanted: Sequence[Wanted], offered: Mapping[str, Mapping[str, Any]]) -> CallScore:
    """Compare calls in any order; `offered` maps the tools that could be called to the JSON Schemas of their arguments."""
    pairs = [
        (_count(call.arguments, want.arguments), n, m)
        for n, want in enumerate(wanted)
        for m, call in enumerate(made)
        if call.name == want.name
    ]
    taken: dict[int, tuple[int, int]] = {}
    used: set[int] = set()
    for count, n, m in sorted(pairs, key=lambda pair: -pair[0][0]):
        if n not in taken and m not in used:
            taken[n] = count
            used.add(m)
    everything = len(taken) == len(wanted) and len(used) == len(made)
    return CallScore(
        all_right=everything and all(right == total for right, total in taken.values()),
        names_right=everything,
        right=sum(right for right, _ in taken.values()),
        stated=sum(total for _, total in taken.values()),
        hallucinated=any(not _could_be(call, offered) for call in made) or (bool(made) and not wanted),
    )


def _could_be(call: Made, offered: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether there is such a tool with such arguments."""
    if call.name not in offered:
        return False
    known = offered[call.name].get("properties")
    return known is None or set(call.arguments) <= set(known)


def _count(given: Arguments, wanted: Mapping[str, Sequence[Any]]) -> tuple[int, int]:
    """Return how many of the arguments that are given or must be are right, and how many these are."""
    right = total = 0
    for name in {*given, *wanted}:
        values = wanted.get(name, ())
        if name not in given:
            may_be_left_out = "" in values
            total += not may_be_left_out
            continue
        total += 1
        right += any(same(given[name], value) for value in values)
    return right, total


def same(given: Any, value: Any) -> bool:
    """Return whether a value is one that is right; texts are compared without spelling, numbers by value."""
    if isinstance(given, str) and isinstance(value, str):
        return _SPELLING.sub("", given).lower() == _SPELLING.sub("", value).lower()
    if isinstance(given, bool) or isinstance(value, bool):
        return given is value
    if isinstance(given, int | float) and isinstance(value, int | float):
        return float(given) == float(value)
    if isinstance(given, list) and isinstance(value, list):
        return len(given) == len(value) and all(same(one, other) for one, other in zip(given, value, strict=True))
    if isinstance(given, dict) and isinstance(value, dict):
        return _same_fields(given, value)
    return type(given) is type(value) and bool(given == value)


def _same_fields(given: Arguments, value: Arguments) -> bool:
    """Return whether each field is right; a field of an expected object may list the values that are, as an argument does."""

    def right(name: str) -> bool:
        allowed = value[name]
        if name not in given:
            return isinstance(allowed, list) and "" in allowed
        return same(given[name], allowed) or (isinstance(allowed, list) and any(same(given[name], one) for one in allowed))

    return set(given) <= set(value) and all(right(name) for name in value)
