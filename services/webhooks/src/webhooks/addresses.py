"""Which addresses may be reached: public ones, and what the operator allows; the name is resolved once and the result is pinned."""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from chassis.errors import InvalidArgumentError

_LONGEST = 2048
_PORTS = {"https": 443, "http": 80}
Network = IPv4Network | IPv6Network


class AddressRefusedError(InvalidArgumentError):
    """The address may not be reached."""

    default_code = "webhook_address_refused"


@dataclass(frozen=True)
class Target:
    """Where a connection goes, and the name that it must prove."""

    host: str
    address: str
    port: int
    url: str


def check_url(url: str, *, allow_http: bool) -> SplitResult:
    """Return the parts of an address that could be registered; raise AddressRefusedError otherwise."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise AddressRefusedError("the address is malformed") from error
    if len(url) > _LONGEST or not host or parts.scheme not in (("https", "http") if allow_http else ("https",)):
        raise AddressRefusedError("the address must be https:// with a host")
    if parts.username or parts.password or parts.fragment:
        raise AddressRefusedError("the address must have no user, password or fragment")
    return parts


async def resolve(url: str, *, allow_http: bool, allowed: Iterable[Network]) -> Target:
    """Return the one address to connect to; raise AddressRefusedError when any that the name has is not public or allowed."""
    parts = check_url(url, allow_http=allow_http)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressRefusedError("the name of the host cannot be resolved") from error
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    networks = tuple(allowed)
    if not addresses or not all(_may_be_reached(address, networks) for address in addresses):
        raise AddressRefusedError("the host has an address that is not public")
    return Target(host, str(addresses[0]), port, url)


def _may_be_reached(address: IPv4Address | IPv6Address, allowed: tuple[Network, ...]) -> bool:
    # ::ffff:10.0.0.1 and 64:ff9b::10.0.0.1 are 10.0.0.1.
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in IPv6Network("64:ff9b::/96"):
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _may_be_reached(inner, allowed)
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return address.is_global and not address.is_multicast
