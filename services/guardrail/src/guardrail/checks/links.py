"""Catches addresses and commands that carry data out or do harm where an answer is shown or run."""

import html
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar
from urllib.parse import SplitResult, urlsplit

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Origin

# A stream is judged in windows: an address that began in the last one counts.
_TAIL = 400
# A text with more addresses than these is no answer, and each is looked for in every source.
_MOST_ADDRESSES = 200
_IMAGE = re.compile(
    r"!\[(?:\\.|[^\[\]\\]|\[[^\[\]]{0,200}\]){0,1000}+\]\s{0,8}(?:\(\s{0,8}<?([^)\s>]+)|\[)|^[ ]{0,3}\[[^\]\n]{1,200}\]:\s{0,8}<?(\S+)",
    re.MULTILINE,
)
# A tag up to its end; what is quoted may hold anything.
_TAG = re.compile(r"<[a-z](?:[^<>\"']|\"[^\"]*+\"|'[^']*+')*+", re.IGNORECASE)
# Attributes whose address is fetched without a click, or with one that shows another address.
_LOADS = re.compile(
    r"[\s\"'/](?:src|srcset|imagesrcset|poster|background|lowsrc|dynsrc|ping|xlink:href)\s{0,8}=\s{0,8}"
    r"(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))",
    re.IGNORECASE,
)
_LINKS = re.compile(r"[\s\"'/]\w{0,10}(?:href|src|action)\s{0,8}=\s{0,8}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_HANDLER = re.compile(r"[\s\"'/]on[a-z]{3,24}\s{0,8}=", re.IGNORECASE)
_STYLE = re.compile(r"(?:\burl\s{0,8}\(|@import\b)\s{0,8}['\"]?\s{0,8}((?:https?:|wss?:|ftp:|[/\\]{2})[^'\")\s;]+)", re.IGNORECASE)
_ADDRESS = re.compile(
    r"\b(?:(?:https?|ftp|wss?)://|www\.(?=\w))[^\s<>()\[\]{}'\"`|\\^]+"
    r"|(?<![\w:/.@\\-])//[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,10}(?:[:/?#][^\s<>()\[\]{}'\"`|\\^]*)?(?![\w(])",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"(?:\]\(\s{0,8}<?|\b(?:href|src)\s{0,8}=\s{0,8}['\"]?)\s{0,8}(?:javascript|data|vbscript|file):"
    r"|(?:<|\]:\s{0,8}<?)(?:javascript:|vbscript:|data:\w+/)",
    re.IGNORECASE,
)
# What is not of the page's own host.
_OUTWARD = re.compile(r"[a-z][a-z0-9+.-]{0,30}:|[/\\]{2}", re.IGNORECASE)
_HARMFUL = ("javascript:", "data:", "vbscript:", "file:")
_ACTIVE = re.compile(
    r"<\s{0,8}(?:script|iframe|frame|frameset|object|embed|applet|form|meta|link|base|svg)\b"
    r"|\bon(?:error|load|click|mouseover)\s{0,8}=\s{0,8}['\"]",
    re.IGNORECASE,
)
# What nobody should paste into a shell because an assistant wrote it.
_COMMAND = re.compile(
    r"\brm\s+(?=(?:-\S{1,40}\s+){0,5}(?:-[a-z]{0,20}r|--recursive))(?:-\S{1,40}\s+){1,6}"
    r"['\"]?(?:~/?|\$HOME/?|/(?:(?:home|etc|usr|var|bin|boot|root|lib|opt)/?)?)\*?(?=[\s'\"`;]|$)"
    r"|\b(?:iwr|irm|invoke-webrequest|invoke-restmethod)\b[^\n|;]{0,400}\|\s*(?:iex|invoke-expression)\b"
    r"|\b(?:curl|wget)\b[^\n|;]{0,400}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b"
    r"|:\(\)\s*\{\s*:\|:&\s*\};:|\bmkfs\.\w+\s+/dev/|\bdd\s+if=\S+\s+of=/dev/[a-z]"
    r"|\bdrop\s+(?:table|database)\s+\w+\s*;\s*--|\bpowershell\b[^\n]{0,400}-enc(?:odedcommand)?\s",
    re.IGNORECASE,
)
_LONG = 24


class LinksCheck:
    """Blocks images and addresses outside of the sources that could carry data out, active content, and destructive commands."""

    name: ClassVar[str] = "links"
    cheap: ClassVar[bool] = True
    version = "3"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def __init__(self, allowed_hosts: Iterable[str]) -> None:
        """Let addresses of `allowed_hosts` and their subdomains pass, besides those that a source holds word for word."""
        self._allowed = tuple(host.lower().lstrip(".") for host in allowed_hosts)

    def run(self, subject: Answer, /) -> Finding:
        """Judge what a model wrote; an address without data to an unknown host is only reported.

        People choose the addresses that they write; what runs or loads by itself where their text is shown does not pass for them either.
        """
        reviewed = subject.origin is Origin.REVIEWED
        if not (subject.by_model or reviewed):
            return CLEAR
        text = subject.released[-_TAIL:] + subject.text
        known = "\n".join(source.text for source in subject.sources)
        tags = [match.group() for match in _TAG.finditer(text)]
        if _active(text, tags):
            return _blocked("active content")
        if reviewed:
            loads = not all(self._passes(address, known) for address in _loaded(text, tags))
            return _blocked("what loads by itself from outside of the sources") if loads else CLEAR
        if (found := _COMMAND.search(text)) and found.group() not in known:
            return Finding(1.0, Decision.BLOCK, "unsafe_code", "a destructive command")
        return self._addresses(text, tags, known)

    def _addresses(self, text: str, tags: Iterable[str], known: str) -> Finding:
        loaded = list(dict.fromkeys(_loaded(text, tags)))
        addresses = list(dict.fromkeys(match.group().rstrip(".,;:!?") for match in _ADDRESS.finditer(text)))
        if len(loaded) + len(addresses) > _MOST_ADDRESSES:
            return _blocked(f"more than {_MOST_ADDRESSES} addresses")
        if not all(self._passes(address, known) for address in loaded):
            return _blocked("what loads by itself from outside of the sources")
        strange = [address for address in addresses if not self._passes(address, known)]
        if any(_carries_data(address) for address in strange):
            return _blocked("an address outside of the sources that carries data")
        return Finding(0.5, reason="signal: an address that no source holds") if strange else CLEAR

    def _passes(self, address: str, known: str) -> bool:
        if address and address in known:
            return True
        try:
            host = (_parts(address).hostname or "").lower()
        except ValueError:
            return False
        return any(host == allowed or host.endswith(f".{allowed}") for allowed in self._allowed)


def _blocked(reason: str) -> Finding:
    return Finding(1.0, Decision.BLOCK, "unsafe_link", reason)


def _values(pattern: re.Pattern[str], tag: str) -> Iterator[str]:
    """Yield the values of attributes as a browser reads them."""
    for match in pattern.finditer(tag):
        yield re.sub(r"[\x00-\x1f]", "", html.unescape(next(value for value in match.groups() if value is not None))).strip()


def _active(text: str, tags: Iterable[str]) -> bool:
    """Return whether something would run where the text is shown."""
    if _SCHEME.search(text) or _ACTIVE.search(text):
        return True
    return any(_HANDLER.search(tag) or any(v.lower().startswith(_HARMFUL) for v in _values(_LINKS, tag)) for tag in tags)


def _loaded(text: str, tags: Iterable[str]) -> Iterator[str]:
    """Yield the addresses that would be fetched where the text is shown; an empty one where an image names none."""
    if "![" in text:
        for image in _IMAGE.finditer(text):
            yield html.unescape(image.group(1) or image.group(2) or "")
    for value in (value for tag in tags for value in _values(_LOADS, tag)):
        # A list of sources has a width behind each address.
        parts = [part.split()[0] for part in value.split(",") if part.strip()]
        yield from (part for part in parts if _OUTWARD.match(part))
    for found in _STYLE.finditer(text):
        yield found.group(1)


def _parts(address: str) -> SplitResult:
    """Return the parts of an address as a browser sees them; raise ValueError."""
    plain = re.sub(r"^(https?|wss?|ftp):/*", r"\1://", address.replace("\\", "/"), flags=re.IGNORECASE)
    return urlsplit(f"//{plain}" if plain.lower().startswith("www.") else plain)


def _carries_data(address: str) -> bool:
    try:
        parts = _parts(address)
    except ValueError:
        return True
    # Data hides in names of hosts, too.
    labels = (parts.hostname or "").split(".")
    segments = parts.path.split("/")
    return bool(parts.query or parts.username or (parts.fragment and "=" in parts.fragment)) or any(
        len(part) > _LONG and not re.fullmatch(r"[a-z]+(?:[-_.][a-z]+)*", part) for part in (*labels, *segments)
    )
