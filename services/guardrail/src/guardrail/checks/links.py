"""Catches addresses and commands that carry data out or do harm where an answer is shown or run."""

import re
from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import urlsplit

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError

# A stream is judged in windows: an address that began in the last one counts.
_TAIL = 400
_IMAGE = re.compile(r"!\[[^\]]*\]\s*(?:\(\s*<?([^)\s>]+)|\[)|<img\b[^>]*?\bsrc\s*=\s*['\"]?([^'\"\s>]+)", re.IGNORECASE)
_ADDRESS = re.compile(r"\b(?:https?|ftp|wss?)://[^\s<>()\[\]{}'\"`|\\^]+", re.IGNORECASE)
_SCHEME = re.compile(r"(?:\]\(|\bhref\s*=\s*['\"]?|\bsrc\s*=\s*['\"]?)\s*(?:javascript|data|vbscript|file):", re.IGNORECASE)
_ACTIVE = re.compile(
    r"<\s*(?:script|iframe|object|embed|form|meta|link|svg)\b|\bon(?:error|load|click|mouseover)\s*=\s*['\"]", re.IGNORECASE
)
# What nobody should paste into a shell because an assistant wrote it.
_COMMAND = re.compile(
    r"\brm\s+-[a-z]*r[a-z]*f?[a-z]*\s+(?:--no-preserve-root\s+)?[/~](?:\s|$|\*)"
    r"|\b(?:curl|wget)\b[^\n|;]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b"
    r"|:\(\)\s*\{\s*:\|:&\s*\};:|\bmkfs\.\w+\s+/dev/|\bdd\s+if=\S+\s+of=/dev/[a-z]"
    r"|\bdrop\s+(?:table|database)\s+\w+\s*;\s*--|\bpowershell\b[^\n]*-enc(?:odedcommand)?\s",
    re.IGNORECASE,
)
_LONG = 24


class LinksCheck:
    """Blocks images and addresses outside of the sources that could carry data out, active content, and destructive commands."""

    name: ClassVar[str] = "links"
    cheap: ClassVar[bool] = True
    version = "1"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def __init__(self, allowed_hosts: Iterable[str]) -> None:
        """Let addresses of `allowed_hosts` and their subdomains pass, besides those that a source holds word for word."""
        self._allowed = tuple(host.lower().lstrip(".") for host in allowed_hosts)

    def run(self, subject: Answer, /) -> Finding:
        """Judge what a model wrote; an address without data to an unknown host is only reported."""
        if not subject.by_model:
            return CLEAR
        text = subject.released[-_TAIL:] + subject.text
        known = "\n".join(source.text for source in subject.sources)
        if _SCHEME.search(text) or _ACTIVE.search(text):
            return Finding(1.0, Decision.BLOCK, "unsafe_link", "active content")
        if (found := _COMMAND.search(text)) and found.group() not in known:
            return Finding(1.0, Decision.BLOCK, "unsafe_code", "a destructive command")
        for image in _IMAGE.finditer(text):
            address = image.group(1) or image.group(2) or ""
            if not self._passes(address, known):
                return Finding(1.0, Decision.BLOCK, "unsafe_link", "an image from outside of the sources")
        strange = [a for a in (m.group().rstrip(".,;:!?") for m in _ADDRESS.finditer(text)) if not self._passes(a, known)]
        if any(_carries_data(address) for address in strange):
            return Finding(1.0, Decision.BLOCK, "unsafe_link", "an address outside of the sources that carries data")
        return Finding(0.5, reason="signal: an address that no source holds") if strange else CLEAR

    def _passes(self, address: str, known: str) -> bool:
        if address and address in known:
            return True
        try:
            host = (urlsplit(address).hostname or "").lower()
        except ValueError:
            return False
        return any(host == allowed or host.endswith(f".{allowed}") for allowed in self._allowed)


def _carries_data(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return True
    # Data hides in names of hosts, too.
    labels = (parts.hostname or "").split(".")
    segments = parts.path.split("/")
    return bool(parts.query or parts.username or (parts.fragment and "=" in parts.fragment)) or any(
        len(part) > _LONG and not re.fullmatch(r"[a-z]+(?:[-_.][a-z]+)*", part) for part in (*labels, *segments)
    )
