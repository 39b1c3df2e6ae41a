"""Changes the encoder of all knowledge while it is searched and written, and goes back."""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread

from chassis.errors import ConflictError, FailedPreconditionError, InvalidArgumentError
from chassis.logging import get_logger
from encoders import Encoder, EncoderUnavailableError
from encoders.encoder import Vectors
from ingestor.cdc.embedding import yield_to_others
from ingestor.reembedding import Reembedding, Report
from knowledge.generations import Generation, Generations, State
from knowledge.index import Index
from knowledge.switching import Switchable
from knowledge.tables import Tables

log = get_logger("ingestor")
# Within this time every reader has followed the switch.
_FOLLOWED = dt.timedelta(minutes=1)


@dataclass(frozen=True)
class Switched:
    """What is in use now, what was before, and what building it took."""

    now: Generation
    before: Generation
    report: Report


class Awaited:
    """An encoder that is loaded when `begin` says so; whoever wants vectors waits for it, and everything else goes on."""

    def __init__(self, generation: Generation, *, threads: int) -> None:
        """Load nothing yet."""
        self._loading: Future[Encoder] = Future()
        self._load, self._lock, self._begun = partial(_loaded, generation, threads), Lock(), False

    def begin(self) -> Future[Encoder]:
        """Load it, once; the future raises FailedPreconditionError where its weights are not there or are others."""
        with self._lock:
            begun, self._begun = self._begun, True
        if not begun:
            Thread(target=self._run, name="loading", daemon=True).start()
        return self._loading

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 unit vectors (n, 384), one row per text, in order; wait for `begin`, and raise what it raises."""
        return self._loading.result().encode(texts)

    def _run(self) -> None:
        # The threads of the encoder are as patient as the one that starts them.
        yield_to_others()
        try:
            self._loading.set_result(self._load())
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._loading.set_exception(error)


def load(generation: Generation, *, threads: int) -> Encoder:
    """Return the encoder of a generation; raise FailedPreconditionError where its weights are not there or are others."""
    return Awaited(generation, threads=threads).begin().result()


def _loaded(generation: Generation, threads: int) -> Encoder:
    try:
        encoder = Encoder.load(Path(generation.directory) if generation.directory else None, threads=threads)
    except EncoderUnavailableError as error:
        raise FailedPreconditionError(str(error), code="encoder_unavailable") from error
    if generation.encoder and encoder.identity.key() != generation.encoder:
        message = f"{generation.directory or 'what is installed'} is encoder {encoder.identity.key()!r}, not {generation.encoder!r}"
        raise FailedPreconditionError(message, code="encoder_mismatch")
    return encoder


class EncoderSwitch:
    """One change at a time; a second caller is refused."""

    def __init__(
        self,
        pair: Switchable,
        generations: Generations,
        create: Callable[[str], Index],
        writing: AbstractContextManager[object],
        collections: Sequence[str],
        *,
        threads: int,
        tables: Tables,
        way_back_days: float,
    ) -> None:
        """Exchange `pair`; `create` opens the index of an encoder for writing, `writing` keeps writers away.

        The `tables` of the encoder before stay for `way_back_days`.
        """
        self._tables, self._way_back = tables, dt.timedelta(days=way_back_days)
        self._pair, self._generations, self._create, self._writing = pair, generations, create, writing
        self._collections, self._threads = tuple(collections), threads
        self._running = Lock()

    def to(self, directory: str) -> Switched:
        """Switch to the encoder in a folder; empty means the installed one."""
        if directory and not Path(directory).is_dir():
            raise InvalidArgumentError(f"field 'directory': {directory!r} is not a folder", code="encoder_unavailable")
        return self._switch(Generation("", directory))

    def back(self) -> Switched:
        """Switch to the encoder that was in use before; what changed since is copied first, with its old vectors used again."""
        state = self._generations.read()
        if state is None or state.previous is None:
            raise FailedPreconditionError("there is no encoder to go back to", code="no_previous_encoder")
        return self._switch(state.previous)

    def prune(self) -> list[str]:
        """Give up the way back and drop every table but those that are searched; return their names."""
        with self._alone():
            serving = self._generations.begin(Generation(self._pair.encoder)).serving
            self._generations.forget_previous()
            kept = self._tables.of(serving.encoder)
            dropped = [name for name in self._tables.names() if name not in kept]
            for name in dropped:
                self._tables.drop(name)
            for generation in (self._generations.read() or State(serving)).retired:
                self._generations.revive(generation.encoder)
            return dropped

    def expire(self, now: dt.datetime) -> list[str]:
        """Drop the tables that nobody goes back to any more; return their names. Nothing happens while the encoder is changed."""
        try:
            with self._alone():
                return self._expire(now)
        except ConflictError:
            return []

    def kept_until(self) -> dict[str, dt.datetime]:
        """Return by encoder until when its tables stay at most, where something drops them."""
        state = self._generations.noted()
        if state is None or not state.switched_at:
            return {}
        switched = dt.datetime.fromisoformat(state.switched_at)
        retired = {generation.encoder: switched + _FOLLOWED for generation in state.retired}
        return retired | ({state.previous.encoder: switched + self._way_back} if state.previous else {})

    def _expire(self, now: dt.datetime) -> list[str]:
        due = {encoder for encoder, until in self.kept_until().items() if until <= now}
        state = self._generations.read()
        if state and state.previous and state.previous.encoder in due:
            self._generations.forget_previous()
        dropped = [name for name in self._tables.names() if self._tables.encoder(name) in due] if due else []
        for name in dropped:
            self._tables.drop(name)
        for encoder in due:
            self._generations.revive(encoder)
        return dropped

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._running.acquire(blocking=False):
            raise ConflictError("the encoder is being changed already", code="reembedding_in_progress")
        try:
            yield
        finally:
            self._running.release()

    def _switch(self, wanted: Generation) -> Switched:
        with self._alone():
            before = self._generations.begin(Generation(self._pair.encoder)).serving
            encoder = load(wanted, threads=self._threads)
            now = Generation(encoder.identity.key(), wanted.directory)
            if now.encoder == before.encoder:
                return Switched(now, before, Report())
            self._generations.revive(now.encoder)
            target = self._create(now.encoder)

            def switch() -> None:
                self._generations.switch(now)
                self._pair.switch(target, encoder)

            current = self._pair.current
            try:
                report = Reembedding(current.index, target, current.encoder, encoder).run(self._writing, switch, self._collections)
            except FailedPreconditionError:
                # Refused at the gate: what was built is no way back, and holds every text.
                state = self._generations.read()
                if state is None or state.previous is None or state.previous.encoder != now.encoder:
                    self._generations.retire(now)
                raise
            return Switched(now, before, report)


async def expiring(switch: EncoderSwitch, seconds: float) -> None:
    """Drop tables whose time is over, again and again, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            if dropped := await asyncio.to_thread(switch.expire, dt.datetime.now(dt.UTC)):
                log.info("tables_dropped", tables=dropped)
        except Exception:
            # An engine that is away is asked again; the process goes on.
            log.exception("tables_not_dropped")
