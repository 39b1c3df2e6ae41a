"""Policy files hold rules that are read once and evaluated in a sandbox."""

from pathlib import Path

import pytest

from chassis.policy import PolicyFileError, RuleFailedError, load_policies, load_policy

DOMAINS = Path(__file__).parents[3] / "domains"
RULE = "{id: r, version: '1', owner: o, reason: x, severity: low, deadline_seconds: 1, message: m, when: %s}"


def write(path: Path, when: str) -> Path:
    """Write a policy with one escalation rule."""
    path.write_text(f"version: '1'\nescalation: [{RULE % when}]\n")
    return path


def test_the_shipped_policies_can_be_read() -> None:
    """Each domain that ships has a policy, and its rules hold for the facts they name."""
    policies = load_policies(DOMAINS)
    rule = policies["healthcare"].escalation[0]
    assert rule.holds({"route": {"intent": "urgent"}})
    assert not rule.holds({"route": {"intent": "administrative"}})


def test_a_fact_that_is_missing_is_false(tmp_path: Path) -> None:
    """A rule over facts that nobody stated does not hold, however deep it looks."""
    rule = load_policy(write(tmp_path / "policy.yaml", '"a.b.c == 1"')).escalation[0]
    assert not rule.holds({})


def test_a_rule_that_cannot_be_evaluated_says_so(tmp_path: Path) -> None:
    """An error inside an expression is not mistaken for false."""
    rule = load_policy(write(tmp_path / "policy.yaml", '"x > 3"')).escalation[0]
    with pytest.raises(RuleFailedError, match="rule 'r'"):
        rule.holds({"x": "text"})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("version: '1'\nescalation: [" + RULE % "'(('" + "]\n", "escalation.0"),
        ("version: '1'\nsurprise: 1\n", "surprise"),
        ("version: [\n", "policy.yaml"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, content: str, named: str) -> None:
    """The error is one line with the file and the place."""
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(PolicyFileError) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_before_is_read_without_what_decided_nothing(tmp_path: Path) -> None:
    """`disclosure` was never read; whoever still has it can start, while any other unknown key is an error."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: '1'\ndisclosure:\n  pii_read_roles: [nurse]\n")
    assert load_policy(path).version == "1"


def test_an_expression_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    """Python's internals are closed to a policy file."""
    rule = load_policy(write(tmp_path / "policy.yaml", "\"''.__class__.__mro__[1].__subclasses__()\"")).escalation[0]
    with pytest.raises(RuleFailedError):
        rule.holds({})
