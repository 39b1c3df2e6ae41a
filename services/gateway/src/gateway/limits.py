"""What a tenant may use of this process: rates by GCRA, and requests at the same time."""

import time
from collections.abc import Callable, Mapping

from gateway.refusals import RefusedError
from gateway.settings import Limits, Settings

_MINUTE = 60.0


class Rate:
    """A rate with a burst, as one number: the time at which all that was taken is paid back."""

    __slots__ = ("_interval", "_paid_at", "burst", "per_minute")

    def __init__(self, per_minute: int, burst: int) -> None:
        """Begin with the whole burst available."""
        self.per_minute, self.burst = per_minute, burst
        self._interval, self._paid_at = _MINUTE / per_minute, 0.0

    def take(self, amount: int, now: float) -> float:
        """Take and return 0, or take nothing and return the seconds after which it would succeed."""
        paid_at = max(self._paid_at, now) + min(amount, self.burst) * self._interval
        wait = paid_at - now - self.burst * self._interval
        if wait > 1e-9:
            return wait
        self._paid_at = paid_at
        return 0.0

    def correct(self, amount: int) -> None:
        """Take more, or give back for a negative amount, without refusing."""
        self._paid_at += amount * self._interval

    def remaining(self, now: float) -> int:
        """Return how much can be taken now."""
        return max(0, int((self.burst * self._interval - max(self._paid_at - now, 0.0)) / self._interval + 1e-9))

    def reset_seconds(self, now: float) -> float:
        """Return the seconds after which the whole burst is available."""
        return max(self._paid_at - now, 0.0)


class TenantUse:
    """The rates of one tenant and its requests in flight."""

    __slots__ = ("limits", "pending", "requests", "tokens")

    def __init__(self, limits: Limits) -> None:
        """Begin with nothing used."""
        self.limits, self.pending = limits, 0
        self.requests = Rate(limits.requests_per_minute, limits.request_burst)
        self.tokens = Rate(limits.tokens_per_minute, limits.tokens_per_minute)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Return the rate limits and what is left of them, as OpenAI names them."""
        found: list[tuple[bytes, bytes]] = []
        for name, rate in ((b"requests", self.requests), (b"tokens", self.tokens)):
            found += (
                (b"x-ratelimit-limit-" + name, b"%d" % rate.per_minute),
                (b"x-ratelimit-remaining-" + name, b"%d" % rate.remaining(now)),
                (b"x-ratelimit-reset-" + name, b"%dms" % int(rate.reset_seconds(now) * 1000)),
            )
        return found


class Admittance:
    """One request's share; given back when the request ends."""

    __slots__ = ("_gate", "_reserved", "use")

    def __init__(self, gate: "Gate", use: TenantUse, reserved: int) -> None:
        """Count a request in."""
        self._gate, self.use, self._reserved = gate, use, reserved
        use.pending += 1
        gate.pending += 1

    def settle(self, tokens: int) -> None:
        """Replace the estimate by what was used."""
        self.use.tokens.correct(tokens - self._reserved)
        self._reserved = tokens

    def leave(self) -> None:
        """Count the request out."""
        self.use.pending -= 1
        self._gate.pending -= 1


class Gate:
    """The limits of all tenants in this process; buckets of idle tenants are dropped."""

    _MAX_IDLE = 10_000

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Bind the limits."""
        self._default, self._own = settings.limits, settings.tenant_limits
        self._max_pending, self.clock = settings.max_pending, clock
        self._uses: dict[str, TenantUse] = {}
        self.pending = 0

    def use(self, tenant: str) -> TenantUse:
        """Return what a tenant uses."""
        found = self._uses.get(tenant)
        if found is None:
            if len(self._uses) >= self._MAX_IDLE:
                self._forget_idle()
            found = self._uses[tenant] = TenantUse(_limits(self._own, tenant, self._default))
        return found

    def _forget_idle(self) -> None:
        now = self.clock()
        for tenant in [t for t, use in self._uses.items() if use.pending == 0 and use.tokens.reset_seconds(now) == 0]:
            del self._uses[tenant]

    def enter(self, tenant: str, estimated_tokens: int) -> Admittance:
        """Count a request in; raise RefusedError with the time to wait when a limit is reached."""
        use, now = self.use(tenant), self.clock()
        if self.pending >= self._max_pending:
            raise RefusedError("rate_limit_exceeded", "Too many requests wait here.", reason="queue_full", retry_after_seconds=1)
        if use.pending >= use.limits.max_concurrent:
            raise RefusedError(
                "rate_limit_exceeded", "Too many requests of this tenant at the same time.", reason="concurrency", retry_after_seconds=1
            )
        wait = use.requests.take(1, now)
        if wait:
            raise RefusedError("rate_limit_exceeded", "Requests per minute.", reason="requests", retry_after_seconds=wait)
        amount = min(estimated_tokens, use.tokens.burst)
        wait = use.tokens.take(amount, now)
        if wait:
            use.requests.correct(-1)
            raise RefusedError("rate_limit_exceeded", "Tokens per minute.", reason="tokens", retry_after_seconds=wait)
        return Admittance(self, use, amount)


def _limits(own: Mapping[str, Limits], tenant: str, default: Limits) -> Limits:
    return own.get(tenant, default)
