"""Citations exist, and quotations are what the cited passage says."""

import pytest

from guardrail.checks.base import Answer, Decision, Origin, Source
from guardrail.checks.citations import CitationsCheck, QuoteMatch
from guardrail.quoting import locate

SOURCES = (
    Source("1", "Adults may take  400 mg of ibuprofen\nevery six hours. It\u2019s not for the last months of pregnancy."),
    Source("2", "Shoes can be returned within 30 days, unworn and in their box."),
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Take 400 mg [1].", ""),
        ("Take 400 mg [3].", "citation_unknown"),
        ("Take 400 mg [1, 4].", "citation_unknown"),
        ('It says "adults may take 400 mg of ibuprofen" [1].', ""),
        ('It says "it\'s not for the last months of pregnancy" [1].', ""),
        ("It says “Shoes can be returned within 30 days” [2].", ""),
        ('It says "adults may take 800 mg of ibuprofen" [1].', "quote_unmatched"),
        ('It says "shoes can be returned within 30 days" [1].', "quote_unmatched"),
        ('It says "shoes can be returned within 3" [2].', "quote_unmatched"),
        ('Choose "Next day" at the checkout [2].', ""),
    ],
)
def test_citations_and_quotations_are_exact(text: str, code: str) -> None:
    """A passage that was not given and a quotation that its passage does not hold are sent back; case, blanks and curls do not matter."""
    finding = CitationsCheck().run(Answer(text, sources=SOURCES))

    assert finding.code == code
    assert finding.decision is (Decision.REGENERATE if code else Decision.ALLOW)


def test_a_quotation_is_located_in_its_passage() -> None:
    """The detail says where the quotation stands and where in which passage."""
    text = 'It says "take 400 mg of ibuprofen every six hours" [1].'

    (match,) = CitationsCheck().run(Answer(text, sources=SOURCES)).detail  # type: ignore[misc]

    assert isinstance(match, QuoteMatch)
    assert text[match.quote.start : match.quote.end] == "take 400 mg of ibuprofen every six hours"
    assert SOURCES[0].text[match.source_start : match.source_end] == "take  400 mg of ibuprofen\nevery six hours"


def test_what_no_model_wrote_is_not_compared() -> None:
    """A template may quote a tool's words."""
    subject = Answer('The clerk noted "left at the door of the neighbour".', origin=Origin.TEMPLATE, sources=SOURCES)

    assert not CitationsCheck().run(subject).flagged


def test_words_are_found_whole_or_not_at_all() -> None:
    """A number is not found inside a longer one."""
    assert locate("take 400", "take 4000 mg") is None
    assert locate("take 400", "Take\u00a0400 mg") == (0, 8)
