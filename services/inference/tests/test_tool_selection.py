"""Which tools a small model may choose from."""

import pytest

from encoders import Encoder
from inference.providers.base import Call, Job, Message, Tool, ToolChoice
from inference.tool_selection import ToolSelector, said

WEATHER = Tool("get_weather", "Get the weather forecast of a city.", {"type": "object"})
STOCK = Tool("inventory.stockLevel", "How many pieces of an article a shop has in stock.", {"type": "object"})


@pytest.fixture(scope="module")
def selector() -> ToolSelector:
    """The shipped encoder at the shipped threshold."""
    return ToolSelector(Encoder.load(), 0.35)


def _job(*turns: Message, choice: str = "auto") -> Job:
    return Job(turns, 10, tools=(WEATHER, STOCK), choice=ToolChoice(choice))


def test_the_tool_that_fits_must_be_called(selector: ToolSelector) -> None:
    """Only the tool that does what was asked is left, and the model has to call it."""
    narrowed = selector.narrow(_job(Message("user", "What will the weather be in Lisbon tomorrow?")))

    assert narrowed.tools == (WEATHER,)
    assert narrowed.choice.mode == "required"


def test_a_message_for_no_tool_calls_none(selector: ToolSelector) -> None:
    """A thank-you is answered with words."""
    assert selector.narrow(_job(Message("user", "Thank you, that was kind of you!"))).tools == ()


def test_a_short_reply_is_read_with_what_was_asked_before(selector: ToolSelector) -> None:
    """A "yes" means the question that it answers."""
    turns = [Message("user", "How many red shirts has the shop in stock?"), Message("assistant", "In Porto?"), Message("user", "Yes.")]

    assert selector.narrow(_job(*turns)).tools == (STOCK,)


def test_what_the_caller_decided_stays(selector: ToolSelector) -> None:
    """A choice that is not free, and a turn after a tool has answered, are left alone."""
    asked = _job(Message("user", "Thank you!"), choice="required")
    answered = _job(
        Message("user", "Rain?"), Message("assistant", "", calls=(Call("get_weather", "{}", "1"),)), Message("tool", "Sun", "1")
    )

    assert selector.narrow(asked) is asked
    assert selector.narrow(answered) is answered


def test_names_are_read_as_words() -> None:
    """Dots, underscores and humps are spaces."""
    assert said(STOCK).startswith("inventory stock Level: How many")
