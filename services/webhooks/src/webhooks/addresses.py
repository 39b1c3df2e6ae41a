"""Which addresses may be reached: public ones, and what the operator allows; the name is resolved once and the result is pinned."""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from chassis.errors import InvalidArgumentError, UnavailableError

_LONGEST = 2048
_PORTS = {"https": 443, "http": 80}
Network = IPv4Network | IPv6Network
# Where clouds tell a machine its credentials; some of these are public addresses, and no network that is allowed makes them any better.
_METADATA = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # nearly all clouds
        "169.254.170.2",  # containers of AWS
        "169.254.170.23",
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
        "168.63.129.16",  # Azure
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
# What a resolver answers where there is no such name; anything else is its own trouble and may pass.
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class AddressRefusedError(InvalidArgumentError):
    """The address may not be reached."""

    default_code = "webhook_address_refused"


class NameUnknownError(AddressRefusedError):
    """There is no such name, for now: a registration is refused, a delivery tried again."""


class NameUnresolvedError(UnavailableError):
    """Nobody knows now what the name stands for."""


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
    """Return the one address to connect to.

    Raises AddressRefusedError when any that the name has is not public or allowed, NameUnresolvedError when that cannot be known now.
    """
    parts = check_url(url, allow_http=allow_http)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise AddressRefusedError("the name of the host is malformed") from error
    except OSError as error:
        if error.errno in _NO_SUCH_NAME:
            raise NameUnknownError("the name of the host cannot be resolved") from error
        raise NameUnresolvedError(f"the name of the host cannot be resolved now: {error}") from error
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    networks = tuple(allowed)
    if not addresses or not all(_may_be_reached(address, networks) for address in addresses):
        raise AddressRefusedError("the host has an address that is not public")
    return Target(host, str(addresses[0]), port, url)


def _may_be_reached(address: IPv4Address | IPv6Address, allowed: tuple[Network, ...]) -> bool:
    if address in _METADATA:
        return False
    if isinstance(address, IPv6Address):
        # ::ffff:10.0.0.1 and 64:ff9b::10.0.0.1 are 10.0.0.1, and 2002:a00:1:: leads there.
        inner = address.ipv4_mapped or (IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is not None:
            return _may_be_reached(inner, allowed)
        if address.sixtofour is not None and not _may_be_reached(address.sixtofour, allowed):
            return False
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    # Python calls global what is neither private nor documented: also fec0::/10, ::10.0.0.1 and 64:ff9b:1::/48, all but the first reserved.
    is_inside = address.is_reserved or (isinstance(address, IPv6Address) and address.is_site_local)
    return address.is_global and not address.is_multicast and not is_inside
