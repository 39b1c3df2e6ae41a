"""Sends checkpoints to the witnesses, keeps what they sign, and raises the alarm when nobody has for too long."""

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client import Counter, Gauge

from audit import checkpoints, segments
from audit.checkpoints import CheckpointFile
from audit.ledger import Ledger
from audit.settings import Settings, WitnessSettings
from audit.trust import witness_keys, witness_keys_file
from chassis.logging import get_logger
from chassis.messaging import canonical_json
from chassis.provisioning import write_private
from tlog.notes import InvalidNoteError, Verifier, parse_note, parse_signature, parse_verifier
from tlog.tiles import MissingTileError, TileReader
from tlog.tree import consistency_proof

log = get_logger("witnessing")
_TIMEOUT_SECONDS = 3
_IDLE_SECONDS = 30.0
_CONFLICT = 409

COSIGNED_SIZE = Gauge("strata_audit_cosigned_size", "Records in the newest checkpoint that a witness has cosigned.")
COSIGNED_AT = Gauge("strata_audit_cosigned_timestamp_seconds", "When a witness last cosigned a checkpoint, in Unix seconds.")
WITNESS_ALARM = Gauge("strata_audit_witness_alarm", "Whether no witness has cosigned for too long.")
WITNESS_ERRORS = Counter("strata_audit_witness_errors_total", "Checkpoints that a witness did not cosign.", ["url", "reason"])


class NotCosignedError(Exception):
    """A witness is away or refuses; the message says which."""

    def __init__(self, message: str, *, reason: str, known_size: int | None = None) -> None:
        """Keep the size from which the witness wants the proof, where it says so."""
        super().__init__(message)
        self.reason, self.known_size = reason, known_size


@dataclass
class RemoteWitness:
    """One witness as the log sees it."""

    settings: WitnessSettings
    pinned: str = ""
    # Size that it signed last; what it answers corrects a guess.
    size: int = 0
    # Why it did not sign last time; empty when it did.
    trouble: str = ""

    def cosign(self, note: str, size: int, proof: Callable[[int, int], list[bytes]]) -> str:
        """Return its signature line under a checkpoint; raise NotCosignedError otherwise."""
        key = self._key()
        for _ in range(2):
            old = min(self.size, size)
            lines = "".join(f"{base64.b64encode(part).decode()}\n" for part in proof(old, size))
            try:
                answer = _http(f"{self.settings.url.rstrip('/')}/add-checkpoint", f"old {old}\n{lines}\n{note}".encode())
            except NotCosignedError as error:
                if error.known_size is None or error.known_size == old:
                    raise
                if error.known_size > size:
                    message = f"it has seen {error.known_size} records, the log has {size}: the log shrank"
                    raise NotCosignedError(message, reason="shrunk") from error
                self.size = error.known_size
                continue
            line = _checked(answer, note, key)
            self.size, self.pinned = size, str(key)
            return line
        raise NotCosignedError("it names another size each time", reason="refused")

    def _key(self) -> Verifier:
        wanted = self.settings.key or self.pinned or _http(f"{self.settings.url.rstrip('/')}/vkey", None).strip()
        try:
            return parse_verifier(wanted)
        except InvalidNoteError as error:
            raise NotCosignedError(str(error), reason="key") from error


def _http(url: str, body: bytes | None) -> str:
    try:
        with urlopen(Request(url, data=body), timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - the address is the operator's setting
            content: bytes = response.read(64 * 1024)
    except HTTPError as error:
        text = error.read(1000).decode(errors="replace").strip()
        known = int(text) if error.code == _CONFLICT and text.isdigit() else None
        raise NotCosignedError(f"HTTP {error.code}: {text}", reason=str(error.code), known_size=known) from error
    except (OSError, ValueError) as error:
        raise NotCosignedError(f"does not answer: {error}", reason="unreachable") from error
    return content.decode(errors="replace")


def _checked(answer: str, note: str, key: Verifier) -> str:
    """Return the line of the witness's answer that is its own; raise NotCosignedError when none is good."""
    text = parse_note(note).text
    for line in answer.splitlines(keepends=True):
        with suppress(InvalidNoteError):
            signature = parse_signature(line)
            if (signature.name, signature.key_id) == (key.name, key.key_id):
                key.check(text, signature.signature)
                return line
    raise NotCosignedError("its answer has no signature of its key", reason="signature")


class Witnessing:
    """The log's side of all witnesses."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        """Go on with the keys and the size that are known."""
        self._settings, self._ledger = settings, ledger
        known = witness_keys(settings.state_dir)
        entry = checkpoints.last(ledger.folder / checkpoints.COSIGNED)
        size = entry.size if entry is not None else 0
        self._witnesses = [RemoteWitness(one, known.get(one.url, ""), size) for one in settings.witnesses]
        self._file = CheckpointFile(ledger.folder / checkpoints.COSIGNED, ledger.still_ours)
        # Size of the newest cosigned checkpoint that is kept, and how many signed it.
        self._kept = (-1, 0)
        self._complete, self._tried = -1, 0.0
        self._signed_at = time.monotonic()
        # What to warn of; empty while witnesses sign.
        self.warning = ""

    async def run(self) -> None:
        """Publish and send until cancelled; nothing that a witness does stops the log."""
        while True:
            try:
                await self.send()
            except (OSError, MissingTileError, segments.MisplacedSegmentError) as error:
                log.warning("checkpoint_not_sent", error=repr(error))
            self._judge()
            await asyncio.sleep(self._settings.witness_seconds)

    async def send(self) -> None:
        """Publish the newest checkpoint; send it when it is new, when not all have signed it, or when it was sent long ago."""
        note, size = await asyncio.to_thread(self._ledger.publish)
        now = time.monotonic()
        if not self._witnesses or (size == self._complete and now - self._tried < _IDLE_SECONDS):
            return
        self._tried = now
        answers = await asyncio.gather(*(asyncio.to_thread(self._ask, witness, note, size) for witness in self._witnesses))
        lines = [line for line in answers if line]
        if not lines:
            return
        self._signed_at = time.monotonic()
        if (size, len(lines)) > self._kept:
            await asyncio.to_thread(self._keep, size, note + "".join(lines))
            self._kept = size, len(lines)
        self._complete = size if len(lines) == len(self._witnesses) else -1
        COSIGNED_SIZE.set(size)
        COSIGNED_AT.set(time.time())

    def _ask(self, witness: RemoteWitness, note: str, size: int) -> str:
        # One reader a thread: its cache is not made for several.
        tiles = TileReader(self._ledger.folder, lambda start, end: segments.leaf_hashes(self._ledger.folder, start, end))
        try:
            line = witness.cosign(note, size, lambda old, new: consistency_proof(tiles.node, old, new))
        except NotCosignedError as error:
            WITNESS_ERRORS.labels(url=witness.settings.url, reason=error.reason).inc()
            if witness.trouble != error.reason:
                log.warning("not_cosigned", url=witness.settings.url, reason=error.reason, error=str(error))
            witness.trouble = error.reason
            return ""
        if witness.trouble:
            log.info("cosigned_again", url=witness.settings.url, size=size)
        witness.trouble = ""
        return line

    def _keep(self, size: int, note: str) -> None:
        self._file.append(size, note)
        known = witness_keys(self._settings.state_dir)
        found = {**known, **{witness.settings.url: witness.pinned for witness in self._witnesses if witness.pinned}}
        if found != known:
            write_private(witness_keys_file(self._settings.state_dir), canonical_json(found))

    def _judge(self) -> None:
        late = bool(self._witnesses) and time.monotonic() - self._signed_at > self._settings.witness_alarm_seconds
        self.warning = f"no witness has cosigned the audit log for {self._settings.witness_alarm_seconds:.0f} s" if late else ""
        WITNESS_ALARM.set(late)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
