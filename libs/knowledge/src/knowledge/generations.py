"""Which encoder's index is searched, which one was before it, and the switch between them that readers see as one step."""

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
    """The generation that is searched, and the one to go back to."""

    serving: Generation
    previous: Generation | None = None


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
        return State(Generation(**content["serving"]), Generation(**previous) if previous else None)

    def begin(self, generation: Generation) -> State:
        """Return what is served; where nothing is yet, that is `generation` from now on."""
        return self.read() or self._write(State(generation))

    def switch(self, generation: Generation) -> State:
        """Serve `generation` from now on and keep what was served before as the one to go back to."""
        state = self.read()
        if state is None:
            return self._write(State(generation))
        return state if state.serving == generation else self._write(State(generation, state.serving))

    def forget_previous(self) -> State | None:
        """Give up the way back, so that its index may be removed."""
        state = self.read()
        return self._write(replace(state, previous=None)) if state else None

    def _write(self, state: State) -> State:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)
        return state
