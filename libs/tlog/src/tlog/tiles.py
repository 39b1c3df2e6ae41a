"""The tree as files after C2SP tlog-tiles: 256 hashes each, written once when full, replaced while partial."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tlog.tree import HASH_BYTES, CompactRange, node_hash, subtrees

HEIGHT = 8
WIDTH = 1 << HEIGHT
TILES = "tile"
_CACHED = 512

# Returns the hashes of leaves [start, end).
Leaves = Callable[[int, int], list[bytes]]


class MissingTileError(LookupError):
    """No file has the hash, and nothing can recompute it."""


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """Return the path of a tile inside of the log's folder, such as tile/0/x001/234 or tile/1/000.p/7."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    path = f"{TILES}/{level}/{'/'.join(groups)}"
    return path if width == WIDTH else f"{path}.p/{width}"


def parse_tile_path(path: str) -> tuple[int, int, int]:
    """Return level, number and width of a tile's path; raise ValueError for one that no tile has."""
    head, partial, width = path.partition(".p/")
    parts = head.split("/")
    number = int("".join(part.removeprefix("x") for part in parts[2:]))
    found = int(parts[1]), number, int(width) if partial else WIDTH
    if tile_path(*found) != path:
        raise ValueError(f"{path!r} is not the path of a tile")
    return found


def widths(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield level, number and width of the partial tiles of a tree of `size` leaves; full ones are not among them."""
    level, count = 0, size
    while count:
        if count % WIDTH:
            yield level, count // WIDTH, count % WIDTH
        level, count = level + 1, count // WIDTH


class TileWriter:
    """Collects the hashes of a growing tree and writes its tiles; what it writes can be recomputed from the leaves."""

    def __init__(self, folder: Path) -> None:
        """Write below `folder`; nothing is collected yet."""
        self._folder = folder
        self._partial: dict[int, list[bytes]] = {}
        self._full: list[tuple[int, int, bytes]] = []

    def load(self, size: int, reader: "TileReader") -> None:
        """Go on with a tree of `size` leaves."""
        self._full.clear()
        self._partial = {level: reader.tile(level, number, width) for level, number, width in widths(size)}

    def completed(self, level: int, index: int, value: bytes) -> None:
        """Take a hash of the tree, in order; levels are multiples of 8, as CompactRange tells them."""
        tile_level, hashes = level // HEIGHT, self._partial.setdefault(level // HEIGHT, [])
        hashes.append(value)
        if len(hashes) == WIDTH:
            self._full.append((tile_level, index // WIDTH, b"".join(hashes)))
            hashes.clear()

    def state(self) -> dict[int, list[bytes]]:
        """Return what is collected, so that `restore` can take a failed group back."""
        return {level: list(hashes) for level, hashes in self._partial.items()}

    def restore(self, state: dict[int, list[bytes]]) -> None:
        """Forget what was collected since `state`."""
        self._partial = state
        self._full.clear()

    def write_full(self) -> None:
        """Write the tiles that are full since the last call."""
        for level, number, content in self._full:
            _write(self._folder / tile_path(level, number), content)
            partial = self._folder / f"{tile_path(level, number)}.p"
            if partial.is_dir():
                _remove(partial)
        self._full.clear()

    def write_partial(self) -> None:
        """Write the tiles at the right edge, in place of earlier ones of the same number."""
        for level, hashes in self._partial.items():
            if not hashes:
                continue
            number = self._number(level)
            path = self._folder / tile_path(level, number, len(hashes))
            _write(path, b"".join(hashes))
            for other in path.parent.iterdir():
                if other != path:
                    other.unlink(missing_ok=True)

    def _number(self, level: int) -> int:
        """Return the number of the partial tile of a level: all those above it count the full ones."""
        number = 0
        for above in range(max(self._partial), level, -1):
            number = number * WIDTH + len(self._partial.get(above, ()))
        return number


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def tile_root(hashes: list[bytes]) -> bytes:
    """Return the hash of the subtree over a power of two of hashes."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


class TileReader:
    """Hashes of a log's tree, from its tiles, and from its leaves where a tile is missing."""

    def __init__(self, folder: Path, leaves: Leaves | None = None, *, store: bool = False) -> None:
        """Read below `folder`; without `leaves` a missing tile is an error, and `store` writes full ones that were recomputed."""
        self._folder, self._leaves, self._store = folder, leaves, store
        self._cache: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree; raise MissingTileError when nothing has it."""
        tile_level, inside = divmod(level, HEIGHT)
        first = index << inside
        offset = first % WIDTH
        count = 1 << inside
        return tile_root(self.tile(tile_level, first // WIDTH, offset + count)[offset:])

    def tile(self, level: int, number: int, width: int) -> list[bytes]:
        """Return the first `width` hashes of a tile; raise MissingTileError when nothing has them."""
        known = self._cache.get((level, number))
        if known is None or len(known) < width:
            known = self._read(level, number, width)
            if known is None:
                known = self._recompute(level, number, width)
                if self._store and width == WIDTH:
                    _write(self._folder / tile_path(level, number), b"".join(known))
            self._cache[level, number] = known
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return known[:width]

    def _read(self, level: int, number: int, width: int) -> list[bytes] | None:
        full = self._folder / tile_path(level, number)
        candidates = [full]
        with suppress(OSError, ValueError):
            partial = [path for path in full.with_name(f"{full.name}.p").iterdir() if path.name.isdigit() and int(path.name) >= width]
            candidates += sorted(partial, key=lambda path: int(path.name))
        for path in candidates:
            with suppress(OSError):
                content = path.read_bytes()
                if len(content) == HASH_BYTES * (WIDTH if path is full else int(path.name)):
                    return [content[i : i + HASH_BYTES] for i in range(0, len(content), HASH_BYTES)]
        return None

    def _recompute(self, level: int, number: int, width: int) -> list[bytes]:
        first = number * WIDTH
        if level:
            return [tile_root(self.tile(level - 1, first + i, WIDTH)) for i in range(width)]
        if self._leaves is None:
            raise MissingTileError(tile_path(level, number, width))
        hashes = self._leaves(first, first + width)
        if len(hashes) < width:
            raise MissingTileError(f"{tile_path(level, number, width)}: the log has only {len(hashes)} of its leaves")
        return hashes

    def compact_range(self, size: int) -> CompactRange:
        """Return the tree of `size` leaves, ready to grow."""
        return CompactRange(size, [self.node(level, index) for level, index in subtrees(size)])
