"""Changes the encoder of all knowledge while it is searched and written, and goes back."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread

from chassis.errors import ConflictError, FailedPreconditionError, InvalidArgumentError
from encoders import Encoder, EncoderUnavailableError
from encoders.encoder import Vectors
from ingestor.cdc.embedding import yield_to_others
from ingestor.reembedding import Reembedding, Report
from knowledge.generations import Generation, Generations
from knowledge.index import Index
from knowledge.switching import Switchable


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
    ) -> None:
        """Exchange `pair`; `create` opens the index of an encoder for writing, `writing` keeps writers away."""
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

    def _switch(self, wanted: Generation) -> Switched:
        if not self._running.acquire(blocking=False):
            raise ConflictError("the encoder is being changed already", code="reembedding_in_progress")
        try:
            before = self._generations.begin(Generation(self._pair.encoder)).serving
            encoder = load(wanted, threads=self._threads)
            now = Generation(encoder.identity.key(), wanted.directory)
            if now.encoder == before.encoder:
                return Switched(now, before, Report())
            target = self._create(now.encoder)

            def switch() -> None:
                self._generations.switch(now)
                self._pair.switch(target, encoder)

            current = self._pair.current
            report = Reembedding(current.index, target, current.encoder, encoder).run(self._writing, switch, self._collections)
            return Switched(now, before, report)
        finally:
            self._running.release()
