"""Whether the bus keeps what it acknowledges: only a server that syncs every write does."""

import json
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from chassis.errors import FailedPreconditionError

_TIMEOUT_SECONDS = 3


def check_bus_syncs(monitor_url: str) -> None:
    """Ask the server's monitoring; raise FailedPreconditionError unless it syncs each write to the disk before it acknowledges."""
    url = f"{monitor_url.rstrip('/')}/varz"
    try:
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - the address is the operator's setting
            found: dict[str, Any] = json.load(response)
    except (OSError, URLError, ValueError) as error:
        raise FailedPreconditionError(f"whether the bus syncs its writes cannot be asked at {url}: {error}") from error
    configuration = (found.get("jetstream") or {}).get("config") or {}
    if configuration.get("sync_always") is not True:
        raise FailedPreconditionError(
            "the bus acknowledges records before they are on its disk: set `jetstream { sync_interval: always }`, "
            "or allow it with STRATA_AUDIT_ALLOW_UNSYNCED_BUS=true"
        )
