"""The window that the entailment model reads."""

from encoders.claims import Reading
from encoders.evidence import choose, read_lines, window
from encoders.sentences import split_sentences

FILLER = " ".join(f"Nothing in sentence number {n} is about the matter at hand, which stays unnamed." for n in range(30))


def test_a_short_context_is_read_whole() -> None:
    """Nothing is dropped from what fits."""
    text = "The clinic opens at 8 am. It closes at 6 pm."

    assert window(Reading("It closes late."), read_lines([text])) == text


def test_evidence_in_two_places_is_found_in_reading_order() -> None:
    """What covers the rest of the claim is chosen beside the best sentence, first things first."""
    passage = f"Marie won a prize in Stockholm. {FILLER} The physicist was born in Warsaw."
    claim = Reading("The physicist Marie, born in Warsaw, won a prize in Stockholm.")
    lines = read_lines([FILLER, passage])

    chosen = [lines[place].reading.text for place in choose(claim, lines)]

    assert "Marie won a prize in Stockholm." in chosen
    assert "The physicist was born in Warsaw." in chosen
    assert chosen.index("Marie won a prize in Stockholm.") < chosen.index("The physicist was born in Warsaw.")
    assert sum(len(split.split()) for split in chosen) < 90
    assert len(split_sentences(passage)) > 30
