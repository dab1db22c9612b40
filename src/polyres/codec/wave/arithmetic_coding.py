"""Binary arithmetic coding into small integers that float16 holds exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PROBABILITY_BITS = 11
PROBABILITY_ONE = 1 << PROBABILITY_BITS
"""Probabilities are integers from 1 to this less 1; float16 holds all of them exactly."""

WORD_BITS = 12
WORD_HALF = 1 << (WORD_BITS - 1)
"""Words are integers from minus this to this less 1; float16 holds all integers up to 2048 exactly."""

_TOP, _FULL = 1 << 24, 0xFFFFFFFF

COST_BITS = np.full((2, PROBABILITY_ONE), np.inf)
"""Bits that a 0 or a 1 costs, by the probability of a 1."""
COST_BITS[0, 1:] = -np.log2(1 - np.arange(1, PROBABILITY_ONE) / PROBABILITY_ONE)
COST_BITS[1, 1:] = -np.log2(np.arange(1, PROBABILITY_ONE) / PROBABILITY_ONE)


def encode_bits(bits: Sequence[int], probabilities: Sequence[int]) -> list[int]:
    """Code bits with their probabilities of a 1 (1 to 2047, in units of 1 / 2048) as integers from -2048 to 2047.

    Source: Martin 1979, range encoding; two symbols as in the LZMA format, with the carry added at once.
    """
    out = bytearray()
    low, span = 0, _FULL
    for bit, probability in zip(bits, probabilities, strict=True):
        bound = (span >> PROBABILITY_BITS) * probability
        if bit:
            span = bound
        else:
            low += bound
            span -= bound
        while span < _TOP:
            low = _shifted(low, out)
            span <<= 8
    # The number of the final interval with the most zeros at its end.
    for zeros in range(32, -1, -1):
        rounded = (low + (1 << zeros) - 1) >> zeros << zeros
        if rounded < low + span:
            break
    low = rounded
    for _ in range(4):
        low = _shifted(low, out)
    return _as_words(out)


def _shifted(low: int, out: bytearray) -> int:
    """Move the top byte of `low` out, and a carry before it into what is out already."""
    if low > _FULL:
        place = len(out) - 1
        while out[place] == 255:
            out[place] = 0
            place -= 1
        out[place] += 1
        low &= _FULL
    out.append(low >> 24)
    return (low << 8) & _FULL


def _as_words(data: bytearray) -> list[int]:
    """Cut bytes into words of 12 bits; those at the end that are zero are left out."""
    padded = bytes(data) + bytes(-len(data) % 3)
    triples = np.frombuffer(padded, dtype=np.uint8).reshape(-1, 3).astype(np.int64)
    first = (triples[:, 0] << 4) | (triples[:, 1] >> 4)
    second = ((triples[:, 1] & 15) << 8) | triples[:, 2]
    words = np.stack([first, second], axis=1).ravel()
    used = np.flatnonzero(words)
    kept = words[: used[-1] + 1] if len(used) else words[:0]
    return [int(word) - WORD_HALF for word in kept]


class BitDecoder:
    """Reads back what `encode_bits` coded, with the same probabilities in the same order."""

    def __init__(self, words: Sequence[int]) -> None:
        """Start at the first word; zeros follow the last one for ever."""
        values = np.asarray(words, dtype=np.int64).reshape(-1) + WORD_HALF
        values = np.concatenate([values, np.zeros(4 + len(values) % 2, dtype=np.int64)])
        pairs = values.reshape(-1, 2)
        parts = [pairs[:, 0] >> 4, ((pairs[:, 0] & 15) << 4) | (pairs[:, 1] >> 8), pairs[:, 1] & 255]
        self._data = np.stack(parts, axis=1).ravel().tolist()
        self._next = 4
        self._span = _FULL
        self._code = int.from_bytes(bytes(self._data[:4]), "big")

    def bit(self, probability: int) -> int:
        """Return the next bit."""
        bound = (self._span >> PROBABILITY_BITS) * probability
        if self._code < bound:
            self._span, found = bound, 1
        else:
            self._code -= bound
            self._span -= bound
            found = 0
        while self._span < _TOP:
            self._code = (self._code << 8) | (self._data[self._next] if self._next < len(self._data) else 0)
            self._next += 1
            self._span <<= 8
        return found

    def symbol(self, width: int, row: Sequence[int]) -> int:
        """Return the next symbol of `width` bits by a binary tree of 2**width probabilities."""
        node = 1
        for _ in range(width):
            node = 2 * node + self.bit(row[node])
        return node - (1 << width)

    def significant(self, bases: Sequence[int], row: Sequence[int], classes: Sequence[int], start: int) -> list[int]:
        """Return the class of every coefficient of a block, 0 if not kept; see `polyres.codec.wave.step`."""
        data, size, place = self._data, len(self._data), self._next
        span, code, count = self._span, self._code, len(classes)
        last = before = 0
        found = []
        for base in bases:
            bound = (span >> 11) * row[base + 3 * last + before]
            before = last
            if code < bound:
                span = bound
                last = classes[start] if start < count else 1
                start += 1
            else:
                code -= bound
                span -= bound
                last = 0
            found.append(last)
            while span < 16777216:
                code = (code << 8) | (data[place] if place < size else 0)
                place += 1
                span <<= 8
        self._next, self._span, self._code = place, span, code
        return found


def symbol_bits(symbol: int, width: int, row: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the bits of a symbol and their probabilities, as `BitDecoder.symbol` reads them."""
    bits, probabilities, node = [], [], 1
    for place in reversed(range(width)):
        bit = symbol >> place & 1
        bits.append(bit)
        probabilities.append(row[node])
        node = 2 * node + bit
    return bits, probabilities
