"""Steps of a sparse spectrum: what is kept comes back, whatever the modes; nothing is forgotten in the count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.codec.wave.arithmetic_coding import BitDecoder, encode_bits
from polyres.codec.wave.step import (
    SILENT_LOG2,
    Layout,
    context_bases,
    decode_step,
    encode_step,
    full_contexts,
    noise,
    plain_tables,
    resampled,
    rows_of,
    select,
)
from polyres.core.errors import InputError

LAYOUT = Layout(64, 3, (1, 2, 4), 2)
TABLES = plain_tables(3)
ROWS = rows_of(TABLES)


def frames(seed: int, modes: list[int], scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(2, LAYOUT.splits[mode], 64 // LAYOUT.splits[mode]) for mode in modes]
    return [scale * rng.standard_normal(shape) ** 3 for shape in shapes]


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.integers(0, 99),
    st.integers(24, 700),
    st.sampled_from([1e-9, 1.0, 3e4]),
)
def test_what_is_kept_comes_back(modes: list[int], seed: int, budget: int, scale: float) -> None:
    given_frames = frames(seed, modes, scale)
    scalars, decoded = encode_step(given_frames, np.array(modes), TABLES, budget)
    assert scalars.shape == (budget,)
    assert np.array_equal(scalars, scalars.astype(np.float16).astype(np.float32))
    found = decode_step(scalars, LAYOUT, ROWS)
    assert found.modes.tolist() == modes
    for one, two, true in zip(found.kept, decoded, given_frames, strict=True):
        assert np.array_equal(one, two)
        kept = one != 0
        assert np.allclose(one[kept], true[kept], rtol=1e-3)
        if kept.any() and not kept.all():
            threshold = min(np.abs(frame[frame != 0]).min() for frame in decoded if (frame != 0).any())
            assert np.abs(true[~kept]).max() <= threshold * 1.002  # the strongest are kept


def test_a_larger_budget_keeps_more() -> None:
    given_frames = frames(3, [0, 1, 2])
    errors = []
    for budget in (40, 80, 160, 320, 640):
        _, decoded = encode_step(given_frames, np.array([0, 1, 2]), TABLES, budget)
        errors.append(sum(np.square(a - b).sum() for a, b in zip(given_frames, decoded, strict=True)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6 * errors[0]  # 640 numbers hold all 384 coefficients and their places


def test_a_silent_step_is_silent() -> None:
    scalars, _ = encode_step([np.zeros((2, 1, 64))] * 3, np.array([0, 0, 0]), TABLES, 30)
    assert scalars[0] == SILENT_LOG2
    assert not any(frame.any() for frame in decode_step(scalars, LAYOUT, ROWS).kept)


def test_a_budget_too_small_for_the_modes_is_refused() -> None:
    with pytest.raises(InputError, match="2 scalars are too few for a step"):
        encode_step(frames(0, [0, 1, 2]), np.array([0, 1, 2]), TABLES, 2)


@pytest.mark.parametrize("damage", [np.nan, -1.0, 1e4])
def test_damaged_numbers_are_refused(damage: float) -> None:
    scalars, _ = encode_step(frames(0, [0, 0, 0]), np.array([0, 0, 0]), TABLES, 60)
    scalars[1] = damage
    with pytest.raises(InputError, match="the latents are damaged: a step has no valid number of words"):
        decode_step(scalars, LAYOUT, ROWS)


def test_a_flat_spectrum_keeps_no_more_than_asked() -> None:
    assert select([np.ones((1, 2, 8))], 5).count == 5


def test_contexts_read_while_decoding_are_those_of_the_encoder() -> None:
    rng = np.random.default_rng(4)
    classes, previous = rng.integers(0, 3, 32), rng.integers(0, 3, 16)
    bases = context_bases(previous, None, 32)
    row = rng.integers(1, 2048, 11 * 3 * 4 * 9).tolist()
    contexts = full_contexts(bases, classes)
    words = encode_bits((classes > 0).astype(int).tolist(), [row[context] for context in contexts])
    known = [int(one) for one in classes if one]
    assert BitDecoder(words).significant(bases.tolist(), row, known, 0) == classes.tolist()


def test_classes_follow_the_size_of_the_block() -> None:
    assert resampled(np.array([0, 2, 1, 0]), 2).tolist() == [2, 1]
    assert resampled(np.array([0, 2]), 4).tolist() == [0, 0, 2, 2]


def test_noise_depends_on_its_seed_alone_and_has_an_rms_of_one() -> None:
    draws = noise(7, 100_000)
    assert np.array_equal(draws, noise(7, 100_000))
    assert np.sqrt(np.square(draws).mean()) == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(draws, noise(8, 100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.02
