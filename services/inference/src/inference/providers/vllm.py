"""vLLM: adapters by name, texts that are continued, and tools by constrained decoding where the model cannot be trusted with them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from inference import tool_decoding
from inference.providers.base import Job, Message, Outcome
from inference.providers.openai import OpenAIProvider, read_chunk, sampling, to_response_format
from inference.providers.streaming import ChatClient
from inference.tool_selection import ToolSelector

# The white space of Python's json.dumps, in which adapters are trained: compact JSON made one leave every field null.
_SPACED = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}


class VllmProvider(OpenAIProvider):
    """Adds to the protocol what vLLM can do beyond it; tools are its own decision only with `native_tools`."""

    def __init__(self, client: ChatClient, *, native_tools: bool, selector: ToolSelector | None = None) -> None:
        super().__init__(client)
        self._engine, self._native_tools = client, native_tools
        self._selector = selector

    async def generate(self, model: str, job: Job, outcome: Outcome) -> AsyncGenerator[str, None]:
        """Yield the text, at once where it is part of a decision on tools."""
        if job.tools and self._native_tools:
            async for text in super().generate(model, job, outcome):
                yield text
            return
        if self._selector is not None and job.tools:
            job = await asyncio.to_thread(self._selector.narrow, job)
        plan = tool_decoding.plan(job)
        body: dict[str, Any] = sampling(model, job)
        body["messages"] = [{"role": _role(message), "content": tool_decoding.to_text(message)} for message in plan.messages]
        if job.prefix:
            body["messages"].append({"role": "assistant", "content": job.prefix})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if plan.schema is not None:
            body["response_format"] = to_response_format({**(plan.schema or {"type": "object"}), **_SPACED})
        decided: list[str] = []
        async for chunk in self._engine.stream(body):
            if text := read_chunk(chunk, outcome):
                if plan.decides:
                    decided.append(text)
                else:
                    yield text
        if plan.decides:
            text, outcome.calls = tool_decoding.read("".join(decided), job.tools, finish_reason=outcome.finish_reason)
            if text:
                yield text

    async def list_models(self) -> frozenset[str]:
        """Return the base model and the adapters that are loaded; raise ServiceError while the engine is not healthy."""
        await self._engine.check("/health")
        return await self._engine.list_models()


def _role(message: Message) -> str:
    # Chat templates of open models know no developer.
    return "system" if message.role == "developer" else message.role
