"""What never gets into a log line, and what always does."""

import json
import logging

import pytest

from chassis.logging import configure, get_logger
from chassis.redaction import redacted


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("no user jo.bloggs@mail.example.org", "no user <EMAIL>"),
        ("SSN 460-89-9847 unknown", "SSN <SSN> unknown"),
        ("card 4111 1111 1111 1111 refused", "card <CARD> refused"),
        ("card 4111111111111111 refused", "card <CARD> refused"),
        ("at 2026-11-21T16:31:11.123456Z, offset 1732206671123456, request 0af7651916cd43dd8448eb211c80319c", None),
        ("patient-answer@v1 on 127.0.0.1:8100, 4111111111111112, W4817420, py@3", None),
    ],
)
def test_identifiers_go_and_what_operators_need_stays(text: str, clean: str | None) -> None:
    """Addresses, cards with a right check digit and social security numbers go; times, ids, versions and orders stay."""
    assert redacted(text) == (text if clean is None else clean)


def test_no_line_holds_an_identifier_even_in_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields, nested fields and the text of an exception are cleaned; the line stays JSON."""
    before = logging.getLogger().handlers, logging.getLogger().level
    try:
        configure("test", "INFO")
        try:
            int("bad row of jo.bloggs@mail.example.org")
        except ValueError:
            get_logger("t").exception("row_failed", row={"ssn": ["460-89-9847"]}, code=3)
        line = capsys.readouterr().out
    finally:
        logging.getLogger().handlers, level = before
        logging.getLogger().setLevel(level)
    assert json.loads(line)["row"] == {"ssn": ["<SSN>"]}
    assert "bloggs" not in line
    assert "row_failed" in line
