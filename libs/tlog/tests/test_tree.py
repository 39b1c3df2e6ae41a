"""The tree against the vectors of RFC 6962's authors, against another implementation, and against itself."""

import hashlib

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlog.tree import (
    EMPTY_ROOT,
    CompactRange,
    InvalidProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_hash,
    subtrees,
    verify_consistency,
    verify_inclusion,
)

# Leaves and roots of the reference implementation of Certificate Transparency (merkletree tests).
LEAVES = [
    bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = st.integers(1, 700)


class Hashes:
    """A tree in memory, computed from the definition."""

    def __init__(self, count: int) -> None:
        self.leaves = [leaf_hash(str(n).encode()) for n in range(count)]

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree by the definition."""
        if level == 0:
            return self.leaves[index]
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def root(self, size: int) -> bytes:
        """Return the root over the first leaves."""
        return range_hash(self.node, 0, size)


TREE = Hashes(700)


def _other(size: int) -> pymerkle.InmemoryTree:
    other = pymerkle.InmemoryTree()
    for n in range(size):
        other.append_entry(str(n).encode())
    return other


OTHER = _other(700)


def test_the_reference_vectors_hold() -> None:
    """Every prefix of the reference leaves has the published root."""
    grown = CompactRange()
    roots = []
    for leaf in LEAVES:
        grown.append(leaf_hash(leaf))
        roots.append(grown.root().hex())

    assert roots == ROOTS
    assert CompactRange().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_another_implementation_has_the_same_root(size: int) -> None:
    """Growth leaf by leaf, the definition and pymerkle agree, and a tree can grow on from its subtrees alone."""
    half = CompactRange(size // 2, [TREE.node(*at) for at in subtrees(size // 2)])
    for leaf in TREE.leaves[size // 2 : size]:
        half.append(leaf)

    assert half.root() == TREE.root(size) == OTHER.get_state(size)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_inclusion_is_proven_and_accepted_by_both(data: st.DataObject) -> None:
    """A leaf's proof convinces us and pymerkle, and is the one that pymerkle gives."""
    size = data.draw(SIZES)
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(TREE.node, index, size), TREE.root(size)

    verify_inclusion(TREE.leaves[index], index, size, proof, root)
    theirs = OTHER.prove_inclusion(index + 1, size)  # pymerkle counts leaves from 1
    assert sorted(theirs.serialize()["path"]) == sorted([TREE.leaves[index].hex(), *(part.hex() for part in proof)])
    pymerkle.verify_inclusion(TREE.leaves[index], root, theirs)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_consistency_is_proven_and_accepted(data: st.DataObject) -> None:
    """Any two sizes of one log are shown to be consistent; pymerkle, whose proofs have another form, says so of the same roots."""
    new = data.draw(SIZES)
    old = data.draw(st.integers(0, new))
    proof = consistency_proof(TREE.node, old, new)

    verify_consistency(old, new, proof, TREE.root(old), TREE.root(new))
    if 0 < old < new:
        pymerkle.verify_consistency(TREE.root(old), TREE.root(new), OTHER.prove_consistency(old, new))


def test_the_proofs_of_the_standard_s_example_hold() -> None:
    """The tree of seven leaves in section 2.1.3 of RFC 6962 has the audit paths and consistency proofs that are printed there."""
    a, b, c, d, e, f, j = TREE.leaves[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k = node_hash(g, h)
    tree7 = node_hash(k, node_hash(i, j))

    assert TREE.root(7) == tree7
    assert inclusion_proof(TREE.node, 0, 7) == [b, h, node_hash(i, j)]
    assert inclusion_proof(TREE.node, 3, 7) == [c, g, node_hash(i, j)]
    assert inclusion_proof(TREE.node, 4, 7) == [f, j, k]
    assert inclusion_proof(TREE.node, 6, 7) == [i, k]
    assert consistency_proof(TREE.node, 3, 7) == [c, d, g, node_hash(i, j)]
    assert consistency_proof(TREE.node, 4, 7) == [node_hash(i, j)]
    assert consistency_proof(TREE.node, 6, 7) == [i, j, k]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_inclusion_proof_is_refused(data: st.DataObject) -> None:
    """Any other leaf, index, size, root or part of the proof is noticed."""
    size = data.draw(st.integers(2, 300))
    index = data.draw(st.integers(0, size - 1))
    proof, root, leaf = inclusion_proof(TREE.node, index, size), TREE.root(size), TREE.leaves[index]
    kind = data.draw(st.sampled_from(["leaf", "index", "root", "part", "longer", "shorter"]))
    if kind == "leaf":
        leaf = leaf_hash(b"other")
    elif kind == "index":
        index = data.draw(st.integers(-1, size).filter(lambda other: other != index))
    elif kind == "root":
        root = TREE.root(size - 1)
    elif kind == "part":
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = leaf_hash(proof[at])
    elif kind == "longer":
        proof.append(root)
    else:
        proof.pop(data.draw(st.integers(0, len(proof) - 1)))

    with pytest.raises(InvalidProofError):
        verify_inclusion(leaf, index, size, proof, root)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_fork_has_no_consistency_proof(data: st.DataObject) -> None:
    """Another past, a shrunk log or a proof with any part changed, added or dropped is noticed."""
    new = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(TREE.node, old, new)
    old_root, new_root = TREE.root(old), TREE.root(new)
    kind = data.draw(st.sampled_from(["old_root", "new_root", "part", "longer", "shorter", "swapped"]))
    if kind == "old_root":
        old_root = leaf_hash(old_root)
    elif kind == "new_root":
        new_root = leaf_hash(new_root)
    elif kind == "part":
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = leaf_hash(proof[at])
    elif kind == "longer":
        proof.append(new_root)
    elif kind == "shorter":
        proof.pop(data.draw(st.integers(0, len(proof) - 1)))
    else:
        old, new = new, old

    with pytest.raises(InvalidProofError):
        verify_consistency(old, new, proof, old_root, new_root)


def test_sizes_that_make_no_sense_are_refused() -> None:
    """Nobody proves a leaf beyond the end or a log that shrank."""
    with pytest.raises(ValueError, match="no leaf 5"):
        inclusion_proof(TREE.node, 5, 5)
    with pytest.raises(ValueError, match="has not grown"):
        consistency_proof(TREE.node, 6, 5)
    with pytest.raises(ValueError, match="complete subtrees"):
        CompactRange(3, [EMPTY_ROOT])
