"""Which encoder's index is searched, which one was before it, and the switch between them that readers see as one step."""

import datetime as dt
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

_FILE = "generations.json"


@dataclass(frozen=True)
class Generation:
    """An encoder: its key, and the folder of its weights; an empty folder means the one that is installed."""

    encoder: str
    directory: str = ""


@dataclass(frozen=True)
class State:
    """The generation that is searched, the one to go back to, and those whose tables are to be dropped."""

    serving: Generation
    previous: Generation | None = None
    # When `serving` took over, as ISO 8601; empty where nothing was switched yet, or by a version that did not note it.
    switched_at: str = ""
    retired: tuple[Generation, ...] = ()


class Generations:
    """A file beside the indexes; one process writes it, any number read it."""

    def __init__(self, folder: Path) -> None:
        """Use the file in `folder`."""
        self._file = folder / _FILE

    def read(self) -> State | None:
        """Return what is served; None before the first index was made. Raise ValueError for a file that is broken."""
        try:
            content = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        previous = content.get("previous")
        return State(
            Generation(**content["serving"]),
            Generation(**previous) if previous else None,
            content.get("switched_at", ""),
            tuple(Generation(**generation) for generation in content.get("retired", ())),
        )

    def begin(self, generation: Generation) -> State:
        """Return what is served; where nothing is yet, that is `generation` from now on."""
        return self.read() or self._write(State(generation))

    def switch(self, generation: Generation) -> State:
        """Serve `generation` from now on and keep what was served before as the one to go back to."""
        state = self.read()
        if state is None:
            return self._write(State(generation))
        if state.serving == generation:
            return state
        retired = [other for other in (*state.retired, state.previous) if other is not None]
        kept = tuple(other for other in dict.fromkeys(retired) if other.encoder not in {generation.encoder, state.serving.encoder})
        return self._write(State(generation, state.serving, _now(), kept))

    def forget_previous(self) -> State | None:
        """Give up the way back, so that its tables may be dropped."""
        state = self.read()
        return self._retire(state, state.previous) if state and state.previous else state

    def retire(self, generation: Generation) -> State | None:
        """Note that the tables of a generation that is not searched may be dropped."""
        state = self.read()
        return self._retire(state, generation) if state and state.serving.encoder != generation.encoder else state

    def revive(self, encoder: str) -> State | None:
        """Note that the tables of an encoder are dropped, or wanted again."""
        state = self.read()
        if state is None or all(other.encoder != encoder for other in state.retired):
            return state
        return self._write(replace(state, retired=tuple(other for other in state.retired if other.encoder != encoder)))

    def noted(self) -> State | None:
        """Return what is served, with the moment of the switch; where nobody noted it, that is now."""
        state = self.read()
        return self._write(replace(state, switched_at=_now())) if state and state.previous and not state.switched_at else state

    def _retire(self, state: State, generation: Generation) -> State:
        previous = None if state.previous == generation else state.previous
        return self._write(replace(state, previous=previous, retired=tuple(dict.fromkeys((*state.retired, generation)))))

    def _write(self, state: State) -> State:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)
        return state


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
