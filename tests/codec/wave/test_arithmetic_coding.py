"""Arithmetic coding into words: exact inverse, length near the entropy, words that float16 holds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polyres.codec.wave.arithmetic_coding import COST_BITS, WORD_BITS, BitDecoder, encode_bits, symbol_bits

decisions = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2047)), max_size=400)


@given(decisions)
def test_every_bit_comes_back(pairs: list[tuple[int, int]]) -> None:
    words = encode_bits([bit for bit, _ in pairs], [probability for _, probability in pairs])
    assert all(-2048 <= word <= 2047 for word in words)
    assert np.array_equal(np.array(words, dtype=np.float16).astype(int), np.array(words, dtype=int))
    decoder = BitDecoder(words)
    assert [decoder.bit(probability) for _, probability in pairs] == [bit for bit, _ in pairs]


def test_zeros_behind_the_words_change_nothing() -> None:
    words = encode_bits([1, 0, 1, 1], [100, 2000, 1024, 7])
    decoder = BitDecoder([*words, -2048, -2048, -2048])
    assert [decoder.bit(p) for p in (100, 2000, 1024, 7)] == [1, 0, 1, 1]


def test_the_length_is_near_the_entropy() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.integers(20, 400, 20_000)
    bits = (rng.random(20_000) * 2048 < probabilities).astype(int)
    wanted = COST_BITS[bits, probabilities].sum()
    found = len(encode_bits(bits.tolist(), probabilities.tolist())) * WORD_BITS
    assert abs(found - wanted) < 0.002 * wanted + 48


def test_a_carry_runs_through_bytes_that_are_full() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):  # unlikely zeros push the lower end up, likely ones leave it, so carries come often
        bits = (rng.random(120) < 0.5).astype(int).tolist()
        probabilities = [2047 if rng.random() < 0.5 else 1 for _ in bits]
        decoder = BitDecoder(encode_bits(bits, probabilities))
        assert [decoder.bit(probability) for probability in probabilities] == bits


@given(st.lists(st.integers(0, 31), max_size=40), st.integers(0, 9))
def test_symbols_come_back(symbols: list[int], seed: int) -> None:
    row = np.random.default_rng(seed).integers(1, 2048, 32).tolist()
    bits, probabilities = [], []
    for symbol in symbols:
        more, of_each = symbol_bits(symbol, 5, row)
        bits += more
        probabilities += of_each
    decoder = BitDecoder(encode_bits(bits, probabilities))
    assert [decoder.symbol(5, row) for _ in symbols] == symbols
