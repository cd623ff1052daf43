"""What a replica's prefix cache holds, as far as this gateway knows: hashes of the beginnings of the prompts sent to it.

A prompt becomes a chain: one hash for each whole block, made from the block and the hash before it, so that equal hashes
mean equal beginnings. vLLM caches blocks of 16 tokens by the same idea. Blocks here are BLOCK_BYTES of text, about 256
tokens: finer ones would cost more for each request than the fraction of a block that they could still find.
"""

from __future__ import annotations

from collections.abc import Sequence

BLOCK_BYTES = 1024
TOKEN_BYTES = 4  # what a token of a picture, or one given by its number, takes up in a block
MAX_BLOCKS = 1024  # longest chain: 1 MiB of text; what lies beyond it is not looked for

Chain = tuple[int, ...]
Segment = bytes | tuple[int, int]  # text, or a picture: its fingerprint and its tokens


def make_chain(seed: int, segments: Sequence[Segment]) -> Chain:
    """The hashes of a prompt's beginnings, one for each whole block.

    ``seed``: a hash of what keeps equal prompts apart (model, cache_salt). A picture stands for TOKEN_BYTES times its
    tokens, so that all blocks weigh about the same; it is cached as a whole or not at all. Hashes are Python's own: they
    differ from process to process, and nobody outside can aim at a collision.
    """
    chain: list[int] = []
    rest = b""
    for segment in segments:
        if isinstance(segment, bytes):
            data = rest + segment if rest else segment
            whole = min(len(data) // BLOCK_BYTES, MAX_BLOCKS - len(chain)) * BLOCK_BYTES
            for start in range(0, whole, BLOCK_BYTES):
                seed = hash((seed, data[start : start + BLOCK_BYTES]))
                chain.append(seed)
            rest = data[whole:]
        else:
            fingerprint, tokens = segment
            whole, left = divmod(len(rest) + tokens * TOKEN_BYTES, BLOCK_BYTES)
            if not whole:
                rest += b"%020d" % fingerprint + bytes(max(0, tokens * TOKEN_BYTES - 20))
                continue
            seed = hash((seed, rest, fingerprint))
            for _ in range(min(whole, MAX_BLOCKS - len(chain))):
                seed = hash((seed, tokens))
                chain.append(seed)
            rest = bytes(left)
        if len(chain) >= MAX_BLOCKS:
            break
    return tuple(chain)


class PrefixCache:
    """The blocks that one replica holds, least recently used first out, as vLLM's own cache does. Its owner: the replica.

    ``capacity_blocks``: the replica's KV tokens divided by the tokens of a block.
    """

    __slots__ = ("_blocks", "capacity_blocks")

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = max(0, capacity_blocks)
        self._blocks: dict[int, None] = {}  # in order of use, the latest last

    def match(self, chain: Chain) -> int:
        """How many blocks of the chain's beginning are here; they count as used now."""
        blocks = self._blocks
        if not chain or chain[0] not in blocks:
            return 0
        found = 0
        for block in chain:
            if block not in blocks:
                break
            found += 1
        self._touch(chain[:found])
        return found

    def add(self, chain: Chain) -> None:
        """The replica computes this prompt, so that it will hold all of it."""
        if chain:
            self._touch(chain)
            blocks = self._blocks
            for _ in range(len(blocks) - self.capacity_blocks):
                del blocks[next(iter(blocks))]

    def _touch(self, chain: Chain) -> None:
        # Backwards: a block is of no use without those before it, so the end of a prompt has to go first.
        blocks = self._blocks
        for block in reversed(chain):
            if block in blocks:
                del blocks[block]
            blocks[block] = None

    def clear(self) -> None:
        """The replica was started anew."""
        self._blocks.clear()

    def __repr__(self) -> str:
        return f"<PrefixCache blocks={len(self._blocks)}/{self.capacity_blocks}>"
