from __future__ import annotations

import json

import numpy as np
import pytest

from polyres.data.synth.chains import Chain, apply_chain, draw_chain
from polyres.data.synth.effects import Band, equalise, saturate
from polyres.data.synth.oscillators import SAMPLE_RATE_HZ

STEMS = ("drums", "bass", "other", "vocals", "strings")


def noise(length: int = 30_000) -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal((2, length))).astype(np.float32)


@pytest.mark.parametrize("stem", STEMS)
def test_chains_keep_the_level_and_stay_finite(stem: str) -> None:
    wave = noise()
    for seed in range(25):
        chain = draw_chain(stem, np.random.default_rng(seed))
        heard = apply_chain(wave, chain, np.random.default_rng(seed))
        assert heard.shape == wave.shape
        assert heard.dtype == np.float32
        assert np.sqrt(np.mean(heard**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=1e-4)
        assert np.abs(heard).max() < 12 * np.sqrt(np.mean(wave**2))
        assert np.array_equal(heard, apply_chain(wave, chain, np.random.default_rng(seed)))


def test_every_effect_is_drawn_and_none_always() -> None:
    chains = [draw_chain("vocals", np.random.default_rng(seed)) for seed in range(200)]
    for used in (
        [bool(chain.bands) for chain in chains],
        [chain.threshold_db is not None for chain in chains],
        [chain.drive > 0 for chain in chains],
        [chain.echo_s is not None for chain in chains],
        [chain.room_s is not None for chain in chains],
        [chain.width != 1.0 for chain in chains],
    ):
        assert 0.05 < np.mean(used) < 0.95


def test_one_draw_uses_as_much_of_the_generator_as_another() -> None:
    after = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        draw_chain("bass", rng)
        spent = np.random.default_rng(seed)
        draw_chain("vocals", spent)
        after.add(rng.random() == spent.random())
    assert after == {True}


def test_the_plain_chain_changes_nothing_and_effects_come_in_order() -> None:
    wave = noise()
    assert apply_chain(wave, Chain(), np.random.default_rng(0)) == pytest.approx(wave, rel=1e-5)
    bands = (Band("peak", 1000.0, 6.0),)
    heard = apply_chain(wave, Chain(bands=bands, drive=2.0), np.random.default_rng(0))
    by_hand = saturate(equalise(wave, SAMPLE_RATE_HZ, bands), 2.0)
    assert np.corrcoef(heard.ravel(), by_hand.ravel())[0, 1] > 1 - 1e-9
    assert not np.any(apply_chain(0 * wave, draw_chain("drums", np.random.default_rng(1)), np.random.default_rng(0)))
    assert apply_chain(wave[:, :0], Chain(), np.random.default_rng(0)).shape == (2, 0)


def test_chains_go_into_a_manifest() -> None:
    assert Chain().to_dict() == {}
    stored = json.loads(json.dumps(Chain(bands=(Band("peak", 1.0, 2.0),), room_s=0.5, room_level=0.1).to_dict()))
    assert stored["room_s"] == 0.5
    assert stored["bands"][0] == {"kind": "peak", "frequency_hz": 1.0, "gain_db": 2.0, "width": 0.707}
