"""Which of the offered tools a conversation asks for, by the meaning of what they do: a small model calls whenever it may."""

import re
from collections.abc import Sequence
from dataclasses import replace

from encoders import Encoder
from inference.providers.base import Job, Message, Tool

# A tool that is this much further from the question than the nearest one is not what was asked for.
_MARGIN = 0.08
_DESCRIPTION_CHARACTERS = 360
_QUESTION_CHARACTERS = 1200


class ToolSelector:
    """Compares the last turns of a conversation with what each tool does; safe to call from several threads."""

    def __init__(self, encoder: Encoder, least: float) -> None:
        """`least` is the cosine of question and tool below which no tool is called."""
        self._encoder, self._least = encoder, least

    def narrow(self, job: Job) -> Job:
        """Return the job with the tools that fit, one of which must be called, or with none; only a free choice (`auto`) is narrowed."""
        if not job.tools or job.choice.mode != "auto" or not job.messages or job.messages[-1].role == "tool":
            return job
        questions = _questions(job.messages)
        if not questions:
            return job
        phrases = [name_in_words(tool) for tool in job.tools] + [said(tool) for tool in job.tools]
        vectors = self._encoder.encode([*questions, *phrases])
        # The name alone says what the tool is; a description also says what it takes and returns.
        cosines = vectors[len(questions) :] @ vectors[: len(questions)].T
        fit = cosines.reshape(2, len(job.tools), len(questions)).mean(axis=0).max(axis=1)
        best = float(fit.max())
        if best < self._least:
            return replace(job, tools=())
        chosen = tuple(tool for tool, value in zip(job.tools, fit, strict=True) if value >= best - _MARGIN)
        return replace(job, tools=chosen, choice=replace(job.choice, mode="required"))


def name_in_words(tool: Tool) -> str:
    """Return the name as a phrase: `get_user.byId` is "get user by Id"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_.\-/]+", " ", tool.name)


def said(tool: Tool) -> str:
    """Return the name and what the tool does."""
    return f"{name_in_words(tool)}: {tool.description}"[:_DESCRIPTION_CHARACTERS]


def _questions(messages: Sequence[Message]) -> list[str]:
    """Return the last thing asked, and the same with what was asked before: "yes, do that" says nothing alone."""
    asked = [message.content[-_QUESTION_CHARACTERS:] for message in messages if message.role == "user" and message.content.strip()]
    return [asked[-1], *([f"{asked[-2]} {asked[-1]}"] if len(asked) > 1 else [])] if asked else []
