"""What counts as the right call of a tool."""

import pytest

from inference.evaluation.call_scoring import Made, Wanted, same, score

OFFERED = {"area": {"type": "object", "properties": {"base": {}, "height": {}, "unit": {}}}, "mass": {"type": "object"}}
WANTED = [Wanted("area", {"base": [10], "height": [5], "unit": ["cm", ""]})]


@pytest.mark.parametrize(
    ("made", "right", "names"),
    [
        ([Made("area", {"base": 10, "height": 5})], True, True),
        ([Made("area", {"base": 10.0, "height": 5, "unit": "CM"})], True, True),
        ([Made("area", {"base": 10, "height": 5, "unit": "m"})], False, True),
        ([Made("area", {"base": 10})], False, True),
        ([Made("mass", {"base": 10, "height": 5})], False, False),
        ([], False, False),
        ([Made("area", {"base": 10, "height": 5}), Made("mass", {})], False, False),
    ],
)
def test_a_call_is_right_with_its_name_and_all_it_needs(made: list[Made], *, right: bool, names: bool) -> None:
    """An argument that may be left out may also be given, but only rightly; one call too many is wrong."""
    found = score(made, WANTED, OFFERED)

    assert (found.all_right, found.names_right) == (right, names)


def test_two_calls_of_one_tool_count_in_any_order() -> None:
    """Each wanted call takes the made one that is most like it."""
    wanted = [Wanted("play", {"artist": ["Abba"]}), Wanted("play", {"artist": ["Queen"]})]

    found = score([Made("play", {"artist": "queen"}), Made("play", {"artist": "Blur"})], wanted, {"play": {}})

    assert not found.all_right
    assert (found.right, found.stated) == (1, 2)


@pytest.mark.parametrize(
    ("made", "wanted", "expected"),
    [
        ([Made("area", {"base": 1, "height": 2})], [], True),
        ([Made("volume", {})], WANTED, True),
        ([Made("area", {"depth": 1})], WANTED, True),
        ([Made("area", {"base": 99, "height": 5})], WANTED, False),
        ([], [], False),
    ],
)
def test_a_call_is_made_up_when_nothing_asked_for_it(made: list[Made], wanted: list[Wanted], *, expected: bool) -> None:
    """Unknown tools, unknown arguments, and any call where none is right; a wrong value is only wrong."""
    assert score(made, wanted, OFFERED).hallucinated is expected


@pytest.mark.parametrize(
    ("given", "value", "expected"),
    [
        ("New York, NY", "new york ny", True),
        (True, 1, False),
        (3, 3.0, True),
        ("3", 3, False),
        ([1, "A"], [1, "a"], True),
        ([1], [1, 2], False),
        ({"lat": 1, "note": "x"}, {"lat": [1, 2], "note": ["", "X"]}, True),
        ({"lat": 3}, {"lat": [1, 2]}, False),
        ({}, {"note": ["x", ""]}, True),
        ({"extra": 1}, {}, False),
    ],
)
def test_values_are_the_same_by_meaning(given: object, value: object, *, expected: bool) -> None:
    """Spelling and kinds of number do not matter, anything else does."""
    assert same(given, value) is expected
