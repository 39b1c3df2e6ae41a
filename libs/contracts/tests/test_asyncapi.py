"""The catalogue that other companies read is the one that the code uses."""

import json
from pathlib import Path

from contracts.asyncapi import document
from contracts.subjects import SUBJECTS


def test_the_document_lists_every_subject_and_resolves() -> None:
    """Each subject has a channel whose message schema is defined in the document itself."""
    api = document()

    assert {channel["address"] for channel in api["channels"].values()} == {subject.template for subject in SUBJECTS}
    text = json.dumps(api)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}
    for reference in references:
        node = api
        for key in reference.split("/"):
            node = node[key.replace("~1", "/")]
        assert node


def test_the_document_in_docs_is_current() -> None:
    """`make proto` writes it; a change of the contracts without that fails here."""
    written = Path(__file__).resolve().parents[3] / "docs" / "asyncapi.json"

    assert json.loads(written.read_text()) == json.loads(json.dumps(document()))
