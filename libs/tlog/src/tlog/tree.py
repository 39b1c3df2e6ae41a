"""The Merkle tree of RFC 6962: hashes, growth, proofs, and their verification (RFC 9162, sections 2.1.3 and 2.1.4)."""

import hashlib
from collections.abc import Callable

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# Returns the hash of the complete subtree over leaves [index << level, (index + 1) << level).
Node = Callable[[int, int], bytes]
# Is told of each subtree as it becomes complete: level, index, hash.
Completed = Callable[[int, int, bytes], None]


class InvalidProofError(ValueError):
    """The proof does not show what it claims."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf's bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """What must be kept of a tree to let it grow: the hashes of its complete subtrees, largest first."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: list[bytes] | None = None) -> None:
        """Begin with a tree of `size` leaves; its subtrees' hashes are those of `subtrees(size)`."""
        self.size, self.hashes = size, list(hashes or ())
        if len(self.hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(self.hashes)}")

    def append(self, leaf: bytes, completed: Completed | None = None) -> None:
        """Add the hash of the next leaf; tell `completed` of every subtree of whole tile levels (8, 16, ...) that this ends."""
        index, level, current = self.size, 0, leaf
        if completed is not None:
            completed(0, index, current)
        while index & 1:
            current = node_hash(self.hashes.pop(), current)
            index >>= 1
            level += 1
            if completed is not None and not level & 7:
                completed(level, index, current)
        self.hashes.append(current)
        self.size += 1

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        if not self.hashes:
            return EMPTY_ROOT
        current = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            current = node_hash(left, current)
        return current

    def copy(self) -> "CompactRange":
        """Return a tree that grows on its own."""
        return CompactRange(self.size, self.hashes)


def subtrees(size: int) -> list[tuple[int, int]]:
    """Return level and index of the complete subtrees of a tree of `size` leaves, largest first."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def range_hash(node: Node, start: int, end: int) -> bytes:
    """Return the hash of leaves [start, end) as the tree has it; `start` is a multiple of the largest power of two in it."""
    count = end - start
    if count <= 0:
        return EMPTY_ROOT
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    split = start + _split(count)
    return node_hash(range_hash(node, start, split), range_hash(node, split, end))


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def inclusion_proof(node: Node, index: int, size: int) -> list[bytes]:
    """Return the audit path of a leaf in the tree of `size` leaves; raise ValueError when it has no such leaf."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, start, end = [], 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            path.append(range_hash(node, split, end))
            end = split
        else:
            path.append(range_hash(node, start, split))
            start = split
    return path[::-1]


def consistency_proof(node: Node, old: int, new: int) -> list[bytes]:
    """Return the proof that the first `old` of `new` leaves are unchanged; raise ValueError for sizes that make no sense."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves has not grown from one of {old}")
    if old in {0, new}:
        return []
    path, start, end, whole = [], 0, new, True
    while old != end:
        split = start + _split(end - start)
        if old <= split:
            path.append(range_hash(node, split, end))
            end = split
        else:
            path.append(range_hash(node, start, split))
            start, whole = split, False
    return ([] if whole else [range_hash(node, start, end)]) + path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    """Check that the leaf with hash `leaf` is the one at `index`; raise InvalidProofError when the proof does not show it."""
    if not 0 <= index < size:
        raise InvalidProofError(f"a tree of {size} leaves has no leaf {index}")
    position, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise InvalidProofError("the proof is too long")
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProofError("the proof is too short")
    if current != root:
        raise InvalidProofError(f"leaf {index} is not in the tree of {size} leaves with this root")


def verify_consistency(old: int, new: int, proof: list[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the tree only grew from `old` to `new` leaves; raise InvalidProofError when the proof does not show it."""
    if not 0 <= old <= new:
        raise InvalidProofError(f"a tree of {new} leaves has not grown from one of {old}")
    if old in {0, new}:
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise InvalidProofError("trees of the same size differ" if old == new else "the empty tree has another root or needs no proof")
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise InvalidProofError("the proof is too short")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise InvalidProofError("the proof is too long")
        if position & 1 or position == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InvalidProofError("the proof is too short")
    if before != old_root or after != new_root:
        raise InvalidProofError(f"the tree of {new} leaves did not grow from the one of {old}")
