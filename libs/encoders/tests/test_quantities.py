"""Figures in every spelling, and those that no source holds."""

import pytest

from encoders.quantities import Figures, missing, quantities


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("Take 5mg.", "Take 5 mg once."),
        ("Take 0.5 g.", "Take 500 mg."),
        ("Take 0.5 grams.", "Take 500 milligrams."),
        ("The limit is 1200 points.", "The limit is 1,200 points."),
        ("It helps 12% of people.", "It helps 12 percent of people."),
        ("It helps 12 % of people.", "It helps 12 per cent of people."),
        ("It began on 2024-03-03.", "It began on March 3, 2024."),
        ("It began on 3 March 2024.", "It began on 03/03/2024."),
        ("It began in March 2024.", "It began on 3rd of March, 2024."),
        ("It began in 2024.", "It began on March 3, 2024."),
        ("Open until 8 p.m.", "Open until 20:00."),
        ("Take two tablets.", "Take 2 tablets."),
        ("Return it within a week, 7 days.", "Return it within 1 week."),
        ("Take 5 mg.", "Take 5-10 mg."),
        ("Give 5 mg/kg.", "Give 5 mg per kg."),
        ("Take 40 mg daily.", "Take 40 mg each day."),
        ("It costs $5.", "It costs 5 dollars."),
        ("About 1.5 million people have it.", "About 1,500,000 people have it."),
        ("Take ½ tablet.", "Take 0.5 tablets."),
        ("Take it 2 times daily.", "Take it twice daily."),
        ("He has acted for over 50 years.", "His career spans five decades."),
        ("It came out on November 2, 2004.", "Printed on 2004-10-19. It comes out on November 2."),
        ("The debates began in June 2019.", "Debates are planned for June. Copyright 2019."),
        ("It was open in June 2018.", "Sent at 2018-06-30T07:00:00Z."),
        ("It changed in the 2018-19 season.", "It changed in the season of 2018 to 2019."),
        ("The anti-CTLA-4 treatment works.", "Treatment against CTLA4 works."),
    ],
)
def test_the_same_figure_in_another_spelling_is_held(claim: str, source: str) -> None:
    """Units, thousands marks, percentages, dates and times are compared by value."""
    assert missing(claim, Figures([source])) == ()


@pytest.mark.parametrize(
    ("claim", "source", "kind"),
    [
        ("Take 50 mg.", "Take 5 mg.", "measure"),
        ("Take 5 g.", "Take 5 mg.", "measure"),
        ("Take 500 mcg.", "Take 500 mg.", "measure"),
        ("Give 5 mg/kg.", "Give 5 mg.", "measure"),
        ("It helps 20% of people.", "It helps 20 people.", "percent"),
        ("It began on March 4, 2024.", "It began on March 3, 2024.", "date"),
        ("It began in April 2024.", "It began on March 3, 2024.", "date"),
        ("Open until 8 am.", "Open until 8 pm.", "time"),
        ("Return it within 30 days.", "Return it within 30 hours.", "measure"),
        ("Take three tablets.", "Take two tablets.", "measure"),
        ("It has 14 rooms.", "It has 4 rooms.", "number"),
        ("Take 1,200 mg.", "Take 200 mg or 1 g.", "measure"),
        ("It came out on November 3, 2004.", "Printed on 2004-10-19. It comes out on November 2.", "date"),
        ("It began in May 2018.", "It may begin. Copyright 2018.", "date"),
        ("It began in May 2018.", "It began on 3 May 2016. Copyright 2018.", "date"),
        ("The anti-CTLA-4 treatment works.", "Treatment against CTLA5 helps 4.5 %.", "number"),
    ],
)
def test_a_figure_that_no_source_holds_is_named(claim: str, source: str, kind: str) -> None:
    """Another value, another unit or another day is missing, and its place in the claim is known."""
    (found,) = missing(claim, Figures([source]))

    assert found.kind == kind
    assert claim[found.start : found.end].strip() == found.text.strip()


def test_each_character_belongs_to_one_figure() -> None:
    """A date is no number, and a dose is no number beside its unit."""
    found = quantities("On March 3, 2024 at 8:30 am she took 20 mg of 3 kinds.")

    assert [q.kind for q in found] == ["date", "time", "measure", "number"]


def test_a_claim_is_respelled_as_its_source_has_it() -> None:
    """The same dose, day and hour take the source's own spelling; others stay as they are."""
    figures = Figures(["Take 400 mg on March 3, 2024 at 8 pm."])

    assert figures.respelled("Take 0.4 g on 2024-03-03 at 20:00, not 5 g.") == "Take 400 mg on March 3, 2024 at 8 pm, not 5 g."
