"""Prompts as versioned files."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from chassis.errors import InvalidArgumentError, NotFoundError
from inference import prompts, wire
from inference.configuration import ConfigurationError
from inference.prompts import Prompt, Prompts
from strata.gateway.v1.gateway_events_pb2 import ChatMessage
from strata.inference.v1.inference_service_pb2 import GenerateRequest
from testkit.vllm import repository

_GOOD = """
name: greet@v1
version: 1
description: Greets.
messages: [{role: user, content: "Hello {{ name }}{% for n in range(times) %}!{% endfor %}"}]
max_tokens: 8
temperature: 0
"""


def _write(folder: Path, text: str, name: str = "greet@v1", domain: str = "d") -> Path:
    path = folder / domain / "prompts" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _greet(tmp_path: Path) -> Prompt:
    _write(tmp_path, _GOOD)
    return prompts.load(tmp_path).get("greet@v1")


def test_the_shipped_prompts_load_with_the_hash_of_their_files() -> None:
    """Every domain's prompts can be named, and the hash is that of the bytes on disk."""
    domains = repository() / "domains"

    loaded = prompts.load(domains)

    assert {"patient-answer@v1", "symptom-extract@v1", "retail-answer@v1", "chat@v1"} <= set(loaded.by_name)
    path = domains / "healthcare" / "prompts" / "patient-answer@v1.yaml"
    assert loaded.get("patient-answer@v1").sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.get("chat@v1").passthrough


def test_variables_are_filled_in(tmp_path: Path) -> None:
    """A template gives the messages that the model reads."""
    (message,) = _greet(tmp_path).render({"name": "Ada", "times": 2}, max_characters=100)

    assert (message.role, message.content) == ("user", "Hello Ada!!")


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"times": 1}, "'name' is undefined"),
        ({"name": "A", "times": 99}, "longer than 50 characters"),
        ({"name": "A", "times": 10**9}, "range"),
        ({"name": "A", "times": "many"}, "cannot be filled in"),
    ],
)
def test_what_cannot_be_filled_in_is_the_callers_fault(tmp_path: Path, variables: dict[str, Any], problem: str) -> None:
    """A missing variable or a text without end is refused with the prompt's name."""
    with pytest.raises(InvalidArgumentError, match=r"greet@v1") as caught:
        _greet(tmp_path).render(variables, max_characters=50)

    assert problem.lower() in str(caught.value).lower()


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    """The sandbox refuses what would lead out of the template."""
    _write(tmp_path, _GOOD.replace("{{ name }}", "{{ name.__class__.__mro__ }}"))

    with pytest.raises(InvalidArgumentError):
        prompts.load(tmp_path).get("greet@v1").render({"name": "A", "times": 0}, max_characters=50)


def test_an_unknown_prompt_names_the_known_ones(tmp_path: Path) -> None:
    """A caller that mistypes a version sees which there are."""
    _write(tmp_path, _GOOD)

    with pytest.raises(NotFoundError, match=r"greet@v2.*greet@v1"):
        prompts.load(tmp_path).get("greet@v2")


@pytest.mark.parametrize(
    "text",
    [
        _GOOD.replace("greet@v1", "other@v1"),
        _GOOD.replace("user", "wizard"),
        _GOOD.replace("{{ name", "{{ name |"),
        _GOOD + "extra: 1\n",
        "[",
    ],
)
def test_a_wrong_file_stops_the_start(tmp_path: Path, text: str) -> None:
    """The message is one line with the file's path."""
    path = _write(tmp_path, text)

    with pytest.raises(ConfigurationError) as caught:
        prompts.load(tmp_path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_exists_once(tmp_path: Path) -> None:
    """Two domains cannot mean different texts by one name."""
    _write(tmp_path, _GOOD)
    _write(tmp_path, _GOOD, domain="e")

    with pytest.raises(ConfigurationError, match="twice"):
        prompts.load(tmp_path)


def test_a_canary_ends_the_first_system_turn() -> None:
    """What comes before it stays the same for an engine's cache; without a system turn there is one; a sentence is no canary."""
    turns = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello")]

    def made(messages: list[ChatMessage], canary: str) -> list[str]:
        request = GenerateRequest(tier="small", messages=messages, canary=canary)
        job, _ = wire.to_job(request, Prompts(), default_max_tokens=8, max_characters=1000)
        return [f"{message.role}: {message.content}" for message in job.messages]

    assert made(turns, "c0ffee00c0ffee00") == ["system: Be brief.\nInternal reference c0ffee00c0ffee00.", "user: Hello"]
    assert made(turns[1:], "c0ffee00c0ffee00") == ["system: Internal reference c0ffee00c0ffee00.", "user: Hello"]
    assert made(turns, "") == ["system: Be brief.", "user: Hello"]
    with pytest.raises(InvalidArgumentError, match="canary"):
        made(turns, "ignore the rest")
