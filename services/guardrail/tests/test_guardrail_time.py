"""No pattern and no check takes time with the square of what a client sends."""

import importlib
import pkgutil
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import encoders
import guardrail
from chassis import redaction
from encoders.people import without_names
from encoders.self_harm import speaks_of_self_harm
from guardrail.checks.base import Answer
from guardrail.checks.links import LinksCheck
from guardrail.personal.detection import Detector, Mention, Policy, everywhere
from guardrail.personal.rules import Rule

ROOT = Path(__file__).parents[3]
_RUNS = ("a", "A", " ", "\n", "1", "-", "(", "'1", "ZZ-", "Az ", "1 ", "<a ", "![", "a@", "«")
# Much more than any of them needs, and much less than the square of a short run would take.
_MOST_SECONDS = 4.0
_LEAST_SECONDS = 0.08
# Four times as long a text may take this many times as long.
_RATIO = 9.0


def _patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    for package in (guardrail, encoders):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("__main__", "evaluation", "settings", "prompts")):
                importlib.import_module(found.name)
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] in {"guardrail", "encoders"}]
    seen: dict[str, str] = {}
    for module in (*modules, redaction):
        for name, value in vars(module).items():
            for part in value if isinstance(value, tuple) else (value,):
                pattern = part.pattern if isinstance(part, Rule) else part
                if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str) and pattern.pattern not in seen:
                    # Templates are ours.
                    seen[pattern.pattern] = f"{module.__name__}.{name}"
                    yield seen[pattern.pattern], pattern


def _texts(pattern: re.Pattern[str], size: int) -> Iterator[str]:
    """Yield runs of one thing, and of the pattern's own words with and without blanks after the first."""
    words = list(dict.fromkeys(re.findall(r"(?<!\\)\b[A-Za-z]{2,}", pattern.pattern)))[:3]
    for run in (*_RUNS, *(f"{word} " for word in words)):
        yield (run * size)[:size]
    for word in words[:1]:
        yield word + " " * size
        yield (f"{word}-" * size)[:size]


def _seconds(work: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    work(text)
    return time.process_time() - started


def _measured(work: Callable[[str], object], long: str, short: str) -> tuple[float, float]:
    """Return the seconds for both texts, measured again where a loaded machine may have slowed the longer one alone."""
    for _ in range(4):
        spent, less = _seconds(work, long), _seconds(work, short)
        if spent < _RATIO * less:
            break
    return spent, less


def _late(_: int, __: FrameType | None) -> None:
    raise AssertionError("takes longer than any linear pattern could")


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End what would never end; the clock is that of this process's work."""
    before = signal.signal(signal.SIGVTALRM, _late)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def test_no_pattern_takes_time_with_the_square_of_a_text() -> None:
    """Every pattern reads four times as long a run in about four times the time."""
    for name, pattern in _patterns():

        def reads(text: str, pattern: re.Pattern[str] = pattern) -> object:
            return sum(1 for _ in pattern.finditer(text))

        for short, long in zip(_texts(pattern, 1_500), _texts(pattern, 6_000), strict=True):
            signal.setitimer(signal.ITIMER_VIRTUAL, _MOST_SECONDS)
            spent = _seconds(reads, long)
            if spent > _LEAST_SECONDS:
                spent, less = _measured(reads, long, short)
                assert spent < _RATIO * less, f"{name}: {spent:.2f} s for 6,000 characters, {less:.2f} s for 1,500: {long[:20]!r}"


@pytest.fixture(scope="module")
def works() -> dict[str, Callable[[str], object]]:
    """What is more than a pattern."""
    detector, links = Detector(Policy(weights=ROOT / "models" / "personal")), LinksCheck([])

    def repeated(text: str) -> object:
        words = re.finditer(r"\S+", text)
        return everywhere([text], [[Mention(*word.span(), "EMAIL") for word in words]])

    return {"detector": detector.read, "links": lambda text: links.run(Answer(text)), "names": without_names,
            "self_harm": speaks_of_self_harm, "everywhere": repeated}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("detector", "("),
        ("detector", "1:"),
        ("detector", "A"),
        ("links", "https://a{}.example/ "),
        ("names", ". "),
        ("self_harm", "cut it is "),
        ("everywhere", "u{}q@b{}.example "),
    ],
)
def test_no_check_takes_time_with_the_square_of_a_text(works: dict[str, Callable[[str], object]], name: str, one: str) -> None:
    """What is around the patterns is as nearly linear as they are."""
    long = "".join(one.replace("{}", str(number)) for number in range(6_000 // len(one)))
    signal.setitimer(signal.ITIMER_VIRTUAL, 4 * _MOST_SECONDS)
    works[name]("warm")
    spent, less = _measured(works[name], long, long[: len(long) // 4])
    assert spent < max(4 * _LEAST_SECONDS, _RATIO * less), f"{name}: {spent:.2f} s, and {less:.2f} s for a quarter"
