"""The statistics of `strata fairness` on data whose truth is known, and the command itself."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import counterfactuals
from cli.counterfactuals import TEMPLATES, Name, Stages
from cli.disparities import ALPHA, Outcome, p_values, report
from cli.main import app

_REPEATS = 20_000


def _alarms(rates: tuple[float, float], n: int) -> float:
    """Return how often two groups of `n` people with these flag rates raise an alarm."""
    rng = np.random.default_rng(7)
    draws = rng.binomial(n, rates, (_REPEATS, 2))
    return float(np.mean(p_values(draws, np.full(2, n)) <= ALPHA))


@pytest.mark.parametrize(("rates", "n"), [((0.10, 0.15), 1000), ((0.05, 0.10), 1000), ((0.30, 0.35), 2000)])
def test_five_points_are_found_nine_times_in_ten(rates: tuple[float, float], n: int) -> None:
    """A difference of five points is found with power 0.9 or more, and none where there is none in 95 of 100."""
    assert _alarms(rates, n) >= 0.9
    assert _alarms((rates[0], rates[0]), n) <= 0.05


def _outcomes(rates: dict[str, float], n: int) -> list[Outcome]:
    return [Outcome(i < rate * n, {"gender": group, "site": "here"}) for group, rate in rates.items() for i in range(n)]


def test_a_report_names_the_difference_and_hides_small_groups() -> None:
    """Rates come with intervals; a group of 29 is counted and not shown; an attribute with one group is never an alarm."""
    outcomes = [*_outcomes({"a": 0.10, "b": 0.17}, 1000), *_outcomes({"c": 1.0}, 29)]
    tables = report(outcomes)["attributes"]
    found = tables["gender"]["flag_rate"]
    assert (found["disparity"], found["alarm"], found["suppressed"]) == (0.07, True, 1)
    assert set(found["groups"]) == {"a", "b"}
    assert found["groups"]["a"]["interval"][0] < 0.10 < found["groups"]["a"]["interval"][1]
    assert not tables["site"]["flag_rate"]["alarm"]
    assert report(outcomes) == report(outcomes), "seeded"


def test_with_labels_errors_are_compared_too() -> None:
    """Equal flag rates with unequal recall are found as unequal recall."""
    rows = []
    for group, hits in (("a", 180), ("b", 120)):
        rows += [Outcome(i < hits, {"g": group}, 1) for i in range(200)]
        rows += [Outcome(i < 300 - hits, {"g": group}, 0) for i in range(800)]
    table = report(rows)["attributes"]["g"]
    assert not table["flag_rate"]["alarm"]
    assert table["recall"]["alarm"]
    assert table["recall"]["disparity"] == 0.3


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    """A difference ends with 1, a row that cannot be read with 2 and its number."""
    path = tmp_path / "rows.jsonl"
    rows = [{"flagged": i < rate, "groups": {"g": name}} for name, rate in (("a", 20), ("b", 60)) for i in range(100)]
    path.write_text("\n".join(map(json.dumps, rows)))
    result = CliRunner().invoke(app, ["fairness", "report", "--data", str(path), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["attributes"]["g"]["flag_rate"]["disparity"] == 0.4
    path.write_text('{"flagged": 2, "groups": {"g": "a"}}')
    result = CliRunner().invoke(app, ["fairness", "report", "--data", str(path)])
    assert (result.exit_code, "row 1" in result.output) == (2, True)


def test_a_swap_of_names_that_changes_a_decision_shows() -> None:
    """A judge that treats one name in ten differently has the invariance that pairs of names have, and a group that shows it."""
    names = [Name(f"name{n}", "F" if n < 5 else "M", "unstated") for n in range(10)]

    def judge(texts: Sequence[str], domain: str) -> list[dict[str, str]]:
        return [{"route": "other" if "name0" in text else domain, "safety": "allow"} for text in texts]

    found = counterfactuals.compare(names, Stages([judge]), TEMPLATES[:6])["decisions"]
    assert found["safety"]["invariance"] == 1.0
    assert found["route"]["invariance"] == round(36 / 45, 4)
    assert found["route"]["groups"]["gender"] == {"F": {"n": 30, "rate": 0.8}, "M": {"n": 30, "rate": 1.0}}
    assert found["route"]["disparity"]["gender"] == 0.2


def test_who_decides_after_screening_never_sees_a_name_that_was_found() -> None:
    """A judge of screened texts that decides by the name decides alike once the name is replaced, while one before does not."""
    names = [Name(f"name{n}", "F", "unstated") for n in range(4)]

    def judge(what: str) -> counterfactuals.Decide:
        return lambda texts, _: [{what: text} for text in texts]

    stages = Stages([judge("before")], lambda texts: ["screened"] * len(texts), [judge("after")])
    found = counterfactuals.compare(names, stages, TEMPLATES[:1])["decisions"]
    assert (found["before"]["invariance"], found["after"]["invariance"]) == (0.0, 1.0)
