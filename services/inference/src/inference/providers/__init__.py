"""The kinds of engine, by the name that the configuration uses."""

from typing import Literal

from inference.providers.base import Provider
from inference.providers.openai import OpenAIProvider
from inference.providers.streaming import ChatClient
from inference.providers.vllm import VllmProvider
from inference.tool_selection import ToolSelector

ProviderKind = Literal["vllm", "openai"]


def create(client: ChatClient, *, decides_tools: bool, kind: ProviderKind, selector: ToolSelector | None = None) -> Provider:
    """Return the provider of a deployment; `decides_tools` is whether the engine itself decides on tools, `selector` who helps it."""
    if kind == "vllm":
        return VllmProvider(client, native_tools=decides_tools, selector=selector)
    return OpenAIProvider(client)
