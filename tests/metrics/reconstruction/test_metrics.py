from __future__ import annotations

import math
import sys
import types
from contextlib import suppress

import numpy as np
import pystoi
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.metrics.reconstruction.metrics import (
    RECONSTRUCTION_METRICS,
    invalid_reason,
    pesq_wb,
    reconstruction_names,
    score,
)

RATE = 16000


def music(seconds: float = 1.0, channels: int = 1, rate: int = RATE, seed: int = 0) -> Tensor:
    """Harmonics that beat, with noise above: something in every band."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    tones = sum(torch.sin(2 * math.pi * f * t * (1 + 0.01 * c)) / (c + 1) for c, f in enumerate((110, 440, 1760, 5000)))
    noise = torch.randn(channels, len(t), generator=generator, dtype=torch.float64)
    return 0.1 * tones * (1 + 0.5 * torch.sin(2 * math.pi * 3 * t)) + 0.02 * noise


def sine(frequency_hz: float, seconds: float = 1.0, rate: int = RATE) -> Tensor:
    return torch.sin(2 * math.pi * frequency_hz * torch.arange(round(seconds * rate), dtype=torch.float64) / rate)[None]


def test_every_metric_says_what_its_numbers_mean() -> None:
    for name in RECONSTRUCTION_METRICS.names():
        metric = RECONSTRUCTION_METRICS.build(name)
        assert metric.name == name
        assert metric.unit in ("dB", "nat", "%", "LU", "sample", "MOS", "log10 power", "1")
        assert (metric.direction == "nearest") == (metric.best in (0.0, 100.0) and metric.direction != "lower")
        assert RECONSTRUCTION_METRICS.summary(name)
        assert metric.source
        assert metric.silence
        assert metric.speech_only == (name in ("pesq_wb", "stoi", "estoi"))
    sensitive = {n for n in RECONSTRUCTION_METRICS.names() if RECONSTRUCTION_METRICS.build(n).phase_sensitive}
    assert sensitive == {"snr", "si_sdr", "correlation", "lag"}
    assert set(reconstruction_names(speech=True)) - set(reconstruction_names()) == {"pesq_wb", "stoi", "estoi"}


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (1, 8000), (2, 2000)])
def test_identity_is_best(channels: int, rate: int) -> None:
    wave = music(0.6, channels, rate)
    for name, value in score(wave, wave, rate).items():
        best = RECONSTRUCTION_METRICS.build(name).best
        if name == "si_sdr":  # bounded by the energy that is added
            assert value > 80
        elif rate <= 8000 and "high" in name:
            assert math.isnan(value) or value == best
        else:
            assert value == pytest.approx(best, abs=1e-12), name


def test_the_notes_ruler_ranks_silence_above_any_output_without_the_phase() -> None:
    wave = music()
    silence, flipped = torch.zeros_like(wave), -wave
    assert score(wave, silence, RATE, ["snr"])["snr"] == 0
    assert score(wave, flipped, RATE, ["snr"])["snr"] == pytest.approx(-10 * math.log10(4))
    free = [n for n in reconstruction_names() if not RECONSTRUCTION_METRICS.build(n).phase_sensitive]
    # A turned polarity is inaudible, and no metric without phase may see it.
    assert score(wave, flipped, RATE, free) == pytest.approx(score(wave, wave, RATE, free), abs=1e-12)


def test_silence_gives_what_is_told() -> None:
    wave, nothing = music(), torch.zeros(1, RATE, dtype=torch.float64)
    lost, invented, both = score(wave, nothing, RATE), score(nothing, wave, RATE), score(nothing, nothing, RATE)
    assert lost["snr"] == 0
    assert invented["snr"] == -math.inf
    assert math.isnan(both["snr"])
    for name in ("correlation", "lag"):
        assert math.isnan(lost[name])
        assert math.isnan(invented[name])
    assert 3 < lost["log_mel_l1"] < 11.6
    assert 1 < lost["lsd"] < 10
    assert lost["spectral_convergence"] == 0
    assert math.isnan(invented["spectral_convergence"])
    assert math.isnan(invented["mr_stft"])
    assert lost["mcd"] > 1
    assert [both[name] for name in ("log_mel_l1", "lsd", "mcd", "lufs_difference")] == [0, 0, 0, 0]
    assert lost["band_error_high"] == -math.inf
    assert lost["retention_high"] == 0
    assert math.isnan(invented["retention_low"])
    assert math.isnan(invented["band_error_low"])
    assert -120 < lost["lufs_difference"] < -60
    assert lost["gain"] == -math.inf
    assert math.isnan(invented["gain"])


def test_snr_of_noise_of_known_energy() -> None:
    wave = sine(440)
    error = sine(1000) * 0.1  # orthogonal over whole periods
    values = score(wave, wave + error, RATE, ["snr", "si_sdr", "correlation", "gain"])
    assert values["snr"] == pytest.approx(20, abs=1e-9)
    assert values["si_sdr"] == pytest.approx(20, abs=1e-4)
    assert values["correlation"] == pytest.approx(1 / math.sqrt(1.01))
    assert values["gain"] == pytest.approx(10 * math.log10(1.01))


def test_level_changes_what_it_must_and_nothing_else() -> None:
    wave = music()
    values = score(wave, 0.5 * wave, RATE)
    halved_db = 20 * math.log10(0.5)
    for name in ("gain", "lufs_difference", "band_error_low", "band_error_mid", "band_error_high"):
        assert values[name] == pytest.approx(halved_db, abs=0.01), name
    assert values["retention_mid"] == pytest.approx(25)
    assert values["log_mel_l1"] == pytest.approx(math.log(2), rel=0.02)  # less where the floor is reached
    assert values["lsd"] == pytest.approx(0, abs=1e-9)
    assert values["spectral_convergence"] < -200
    assert values["correlation"] == 1
    assert values["snr"] == pytest.approx(-halved_db, abs=1e-9)
    assert values["si_sdr"] > 80


def test_scores_do_not_depend_on_the_level_of_the_file() -> None:
    wave, other = music(), music() + 0.05 * music(seed=1)
    here, there = score(wave, other, RATE), score(30 * wave, 30 * other, RATE)
    there.pop("si_sdr"), here.pop("si_sdr")
    assert there == pytest.approx(here, rel=1e-6)


def test_a_lost_band_shows_in_that_band_alone() -> None:
    wave = music()
    spectrum = torch.fft.rfft(wave)
    spectrum[:, 4000:] *= 0.1  # bins are 1 Hz apart
    values = score(wave, torch.fft.irfft(spectrum, RATE), RATE)
    assert values["band_error_high"] == pytest.approx(-20, abs=1e-6)
    assert values["retention_high"] == pytest.approx(1, abs=1e-6)
    assert values["band_error_low"] == pytest.approx(0, abs=1e-6)
    assert values["band_error_mid"] == pytest.approx(0, abs=1e-6)
    assert values["log_mel_l1_high"] == pytest.approx(math.log(10), rel=0.05)
    assert values["log_mel_l1_low"] < 0.01


def test_noise_of_the_right_level_wins_the_energy_but_not_the_spectrum() -> None:
    wave = sine(5000) * (torch.arange(RATE) % 4000 < 1000)
    noise = torch.randn(1, RATE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spectrum = torch.fft.rfft(noise)
    spectrum[:, :4000] = 0
    noise = torch.fft.irfft(spectrum, RATE)
    noise = noise * (wave.square().sum() / noise.square().sum()).sqrt()
    values = score(wave, noise, RATE, ["band_error_high", "log_mel_l1_high"])
    assert abs(values["band_error_high"]) < 0.5
    assert values["log_mel_l1_high"] > 2


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3000), st.sampled_from([2000, 8000, 16000, 22050, 24000, 32000, 44100, 48000]), st.integers(1, 2))
def test_any_length_and_rate_can_be_scored(length: int, rate: int, channels: int) -> None:
    wave = np.random.default_rng(length).standard_normal((channels, length)).astype(np.float32)
    values = score(wave, 0.9 * wave, rate)
    assert tuple(values) == reconstruction_names()
    assert values["snr"] == pytest.approx(20, abs=1e-3)
    assert values["retention_low"] == pytest.approx(81, abs=1e-3)


def test_a_chain_without_phase_must_not_be_judged_by_samples() -> None:
    assert "silence would score better" in str(invalid_reason("snr", phase_free=True))
    assert invalid_reason("snr", phase_free=False) is None
    assert invalid_reason("lsd", phase_free=True) is None
    with pytest.raises(UnknownNameError, match="unknown reconstruction metric 'sbr'; did you mean 'snr'"):
        invalid_reason("sbr", phase_free=True)


def test_unusable_input_is_refused() -> None:
    wave = torch.zeros(1, 100)
    with pytest.raises(InputError, match="sample_rate_hz must be above 0, got 0"):
        score(wave, wave, 0)
    with pytest.raises(InputError, match=r"need the shape \[channels, samples\], neither of them 0, got \[100\]"):
        score(wave[0], wave[0], RATE)
    with pytest.raises(InputError, match=r"the original is \[1, 100\] but the reconstruction \[1, 99\]"):
        score(wave, wave[:, :99], RATE)
    with pytest.raises(InputError, match="NaN or infinite"):
        score(wave, wave * math.nan, RATE)
    with pytest.raises(UnknownNameError, match="unknown reconstruction metric 'sdr'"):
        score(wave, wave, RATE, ["sdr"])


EDGES = {
    "silent estimate": lambda wave: (wave, 0 * wave),
    "silent reference": lambda wave: (0 * wave, wave),
    "both silent": lambda wave: (0 * wave, 0 * wave),
    "perfect": lambda wave: (wave, wave.clone()),
    "one sample": lambda wave: (wave[..., :1], 0.5 * wave[..., :1]),
    "ten samples": lambda wave: (wave[..., :10], 0.5 * wave[..., :10]),
    "a fifth of a second": lambda wave: (wave[..., :3200], 0.5 * wave[..., :3200]),
    "very quiet": lambda wave: (1e-30 * wave, 1e-30 * wave.flip(-1)),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", RECONSTRUCTION_METRICS.names())
def test_every_metric_has_a_value_or_none_or_says_why_not_at_the_edges(name: str, edge: str) -> None:
    if name == "pesq_wb":
        pytest.importorskip("pesq")
    reference, estimate = EDGES[edge](music())
    with suppress(InputError):
        assert isinstance(score(reference, estimate, RATE, (name,))[name], float)


def babble(seconds: float = 2.0, seed: int = 0) -> Tensor:
    """Syllables: noise through resonances that come and go."""
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 30))
    wave = voice * (np.sin(2 * np.pi * 4 * t) > -0.3) + 0.1 * generator.standard_normal(len(t))
    return torch.from_numpy(0.05 * wave)[None]


def test_stoi_is_that_of_the_library() -> None:
    wave, other = babble(), babble() + 0.05 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(0))
    values = score(wave, other, RATE, ["stoi", "estoi"])
    assert values["stoi"] == pytest.approx(pystoi.stoi(wave[0].numpy(), other[0].numpy(), RATE))
    extended = pystoi.stoi(wave[0].numpy(), other[0].numpy(), RATE, extended=True)
    assert values["estoi"] == pytest.approx(extended)
    assert values["estoi"] < values["stoi"] < 0.999
    assert score(wave, wave, RATE, ["stoi"])["stoi"] == pytest.approx(1)


def test_channels_are_averaged() -> None:
    clean, noisy = babble(), babble() + 0.05 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(0))
    both = score(torch.cat([clean, clean]), torch.cat([clean, noisy]), RATE, ["stoi"])["stoi"]
    assert both == pytest.approx((1 + score(clean, noisy, RATE, ["stoi"])["stoi"]) / 2)


def test_too_little_speech_and_silence_are_nan() -> None:
    wave = babble()
    short = wave[:, : RATE // 10]
    assert math.isnan(score(short, short, RATE, ["stoi"])["stoi"])
    assert math.isnan(score(wave, wave * 0, RATE, ["stoi"])["stoi"])


def test_pesq_gets_what_it_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Refused(Exception):
        pass

    def answer(rate_hz: int, reference: np.ndarray, estimate: np.ndarray, mode: str) -> float:
        seen.append((rate_hz, reference, estimate, mode))
        if len(reference) < RATE // 4:
            raise Refused
        return 3.0 + len(seen)

    library = types.SimpleNamespace(pesq=answer, PesqError=Refused)
    monkeypatch.setitem(sys.modules, "pesq", library)  # type: ignore[arg-type]
    wave, other = babble().expand(2, -1), babble(seed=1).expand(2, -1)
    assert score(wave, other, RATE, ["pesq_wb"])["pesq_wb"] == 4.5
    assert [entry[0] for entry in seen] == [16000, 16000]
    assert np.array_equal(seen[0][1], wave[0].numpy())
    assert np.array_equal(seen[0][2], other[0].numpy())
    assert seen[0][3] == "wb"
    assert math.isnan(score(wave[:, :1000], other[:, :1000], RATE, ["pesq_wb"])["pesq_wb"])
    assert math.isnan(score(wave, other * 0, RATE, ["pesq_wb"])["pesq_wb"])
    score(wave, other, 32000, ["pesq_wb"])
    assert len(seen[-1][1]) == wave.shape[1] // 2  # what was called 32 kHz is brought to 16 kHz


def test_pesq_itself() -> None:
    library = pytest.importorskip("pesq")
    wave, other = babble(), babble(seed=1)
    wanted = library.pesq(RATE, wave[0].numpy(), other[0].numpy(), "wb")
    assert pesq_wb(wave, other, RATE) == pytest.approx(wanted)
    assert pesq_wb(wave, wave, RATE) == pytest.approx(4.644, abs=0.001)
    assert math.isnan(pesq_wb(wave[:, :1000], wave[:, :1000], RATE))


@pytest.mark.parametrize(
    ("name", "library", "hint"),
    [("pesq_wb", "pesq", r"pip install 'polyres\[pesq\]'"), ("stoi", "pystoi", r"pip install 'polyres\[speech\]'")],
)
def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch, name: str, library: str, hint: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=f"metric '{name}' needs the library '{library}', .*{hint}"):
        score(babble(), babble(), RATE, [name])
