from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from polyres.codec.base import Codec, CodecConfig, Latents
from polyres.codec.enhance.sweep import (
    CODEC_ALONE,
    Chain,
    EnhanceOptions,
    EnhanceRow,
    draw_front,
    pareto_front,
    run_enhancers,
    summarise,
    typical_statistics,
    usable_names,
)
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.dsp.mel import AUDIOLDM2_16K, MelConfig, audioldm2_log_mel


class SettingsOf(CodecConfig):
    front_end: str = "audioldm2"
    autoencoder: str = "means"
    synthesis: str = "known phase"
    mel: MelConfig = AUDIOLDM2_16K


class Means(Codec):
    """A latent of means over 4 frames and 4 bands; the wave is that of the original, coloured band by band."""

    name = "means"
    sample_rate_hz, audio_channels, hop_samples = 16000, 1, 640
    context_samples, window_samples = 640, 640 * 64
    phase_sensitive = False
    level = "peak"
    joins_features = True

    def __init__(self) -> None:
        super().__init__()
        self.config = SettingsOf()
        self.last = torch.zeros(0)

    def encode(self, wave: Tensor) -> Latents:
        self.last = wave
        mel = audioldm2_log_mel(wave[:, 0])
        means = torch.nn.functional.avg_pool2d(mel[:, None], 4)
        return {"z": means.repeat(1, 2, 1, 1) * torch.tensor([1.0, 0.5]).view(1, 2, 1, 1)}

    def to_features(self, latents: Latents) -> Latents:
        z = latents["z"]
        picture = (z[:, :1] + 2 * z[:, 1:]) / 2
        return {"mel": torch.nn.functional.interpolate(picture, scale_factor=4, mode="bilinear")}

    def from_features(self, features: Latents, length_samples: int) -> Tensor:
        wanted = features["mel"][:, 0].mean(dim=1)
        given = audioldm2_log_mel(self.last[:, 0]).mean(dim=1)
        gains = torch.nn.functional.interpolate((wanted - given).exp()[:, None], size=length_samples // 2 + 1)
        return torch.fft.irfft(torch.fft.rfft(self.last) * gains, length_samples)

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        return self.from_features(self.to_features(latents), length_samples)

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        return {"wave": self.decode(self.encode(wave), wave.shape[-1])}


class NoMel(Means):
    """The same, but as a waveform codec whose latents have no frequency axis."""

    name = "no mel"
    joins_features = False
    phase_sensitive = True

    def encode(self, wave: Tensor) -> Latents:
        self.last = wave
        return {"z": wave.reshape(len(wave), 1, -1, 640).mean(dim=-1) + 0.5}

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        steps = latents["z"].repeat_interleave(640, dim=-1)
        return 0.9 * self.last * steps / steps.mean()


def song(path: Path, seconds: float = 2.0, channels: int = 2, rate: int = 22050) -> Path:
    generator = np.random.default_rng(0)
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * f * t) for f in (220, 880, 3520, 6000)) * (1 + np.sin(2 * np.pi * 2 * t))
    noisy = 0.05 * wave + 0.01 * generator.standard_normal((channels, len(t)))
    soundfile.write(path, noisy.T, rate)
    return path


@pytest.fixture
def chain() -> Chain:
    return Chain(Means().eval())


def test_excerpts_are_at_rate_and_level_of_the_codec(tmp_path: Path, chain: Chain) -> None:
    path = song(tmp_path / "a.wav", seconds=4.0)
    excerpt = chain.excerpt(path, 1.0)
    assert excerpt.wave.shape == (2, 1, 16000)
    assert excerpt.wave.abs().amax(dim=(1, 2)).tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert excerpt.duration_s == 1
    assert chain.excerpt(path, 60.0).wave.shape[-1] == 640 * 64  # no more than a window
    late = chain.excerpt(path, 1.0, start_s=0.25)
    middle = chain.excerpt(path, 1.0, start_s=1.5)
    assert torch.equal(middle.wave, excerpt.wave)
    assert not torch.equal(late.wave, excerpt.wave)
    with pytest.raises(InputError, match=r"0\.\d+ s from 3.90 s on are too short; 0.32 s or more are needed"):
        chain.excerpt(path, 1.0, start_s=3.9)


def test_rows_hold_what_was_measured(tmp_path: Path, chain: Chain) -> None:
    excerpt = chain.excerpt(song(tmp_path / "a.wav"), 1.0)
    shares: list[float] = []
    options = EnhanceOptions(("frequency", "ltas_match", "optimise"), (0.5, 1.0), steps=10)
    found = list(run_enhancers(chain, excerpt, options, shares.append))
    rows = [one.row for one in found]
    assert [(row.enhancer, row.strength) for row in rows] == [
        (CODEC_ALONE, 0.0),
        *((name, strength) for name in options.names for strength in (0.5, 1.0)),
    ]
    assert shares == [n / 7 for n in range(7)]
    reference = excerpt.wave.flatten(0, 1)
    for one in found:
        assert one.wave.norm() == pytest.approx(float(reference.norm()), rel=1e-4)  # level-matched
        assert "snr" not in one.row.scores
    by_name = {(row.enhancer, row.strength): row for row in rows}
    alone = by_name[CODEC_ALONE, 0.0]
    assert alone.real_time_factor == 0
    assert not alone.informed
    assert by_name["ltas_match", 1.0].control
    assert by_name["ltas_match", 1.0].informed  # the averages are those of the original
    assert by_name["frequency", 1.0].real_time_factor > 0
    assert by_name["optimise", 1.0].mel_l1 < alone.mel_l1
    assert by_name["optimise", 1.0].mel_l1 < by_name["optimise", 0.5].mel_l1
    assert by_name["ltas_match", 1.0].mel_l1_high < alone.mel_l1_high
    assert alone.to_dict()["scores"]["lsd"] == alone.scores["lsd"]


def test_averages_of_other_files_are_blind(tmp_path: Path, chain: Chain) -> None:
    path, other = song(tmp_path / "a.wav"), song(tmp_path / "b.wav", seconds=3)
    typical = typical_statistics(chain, [other], 1.0)
    assert not typical.informed
    assert typical.mean.shape == (64,)
    options = EnhanceOptions(("adaptive", "gain_match", "ltas_match"), typical=typical)
    assert not any(one.row.informed for one in run_enhancers(chain, chain.excerpt(path, 1.0), options))
    with pytest.raises(ConfigError, match="no files to take typical averages of"):
        typical_statistics(chain, [], 1.0)


def test_a_waveform_codec_is_enhanced_and_judged_by_samples_too(tmp_path: Path) -> None:
    chain = Chain(NoMel().eval())
    assert usable_names(chain, {}) == (
        "frequency",
        "noise",
        "contrast",
        "mixed",
        "multiscale",
        "adaptive",
        "conditioned",
        "optimise",
    )
    excerpt = chain.excerpt(song(tmp_path / "a.wav"), 1.0)
    rows = [one.row for one in run_enhancers(chain, excerpt, EnhanceOptions(("frequency", "optimise"), steps=2))]
    assert all(math.isfinite(row.scores["snr"]) for row in rows)
    with pytest.raises(ConfigError, match="enhancer 'gain_match' changes mel spectra, but no mel decodes to none"):
        list(run_enhancers(chain, excerpt, EnhanceOptions(("gain_match",))))
    latent = chain.encode(excerpt.wave)
    with pytest.raises(ConfigError, match="enhancer 'gain_match' changes mel spectra, but no mel decodes to none"):
        chain.run("gain_match", latent, 1.0, None)  # type: ignore[arg-type]


def test_networks_have_to_be_given(tmp_path: Path, chain: Chain) -> None:
    excerpt = chain.excerpt(song(tmp_path / "a.wav"), 1.0)
    with pytest.raises(ConfigError, match="enhancer 'learned' needs a trained network; give its weight file"):
        list(run_enhancers(chain, excerpt, EnhanceOptions(("learned",))))
    assert "learned" in usable_names(chain, {"learned": torch.nn.Identity()})


def test_latents_that_are_no_picture_are_refused(tmp_path: Path) -> None:
    codec = Means().eval()
    chain = Chain(codec)
    excerpt = chain.excerpt(song(tmp_path / "a.wav"), 1.0)
    codec.encode = lambda wave: {"a": torch.zeros(1, 2, 3), "b": torch.zeros(1, 2, 3)}  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="the latents of means are no picture that could be enhanced"):
        chain.encode(excerpt.wave)


def row(name: str, strength: float, high: float, lsd: float, informed: bool = False, file: str = "a") -> EnhanceRow:
    return EnhanceRow(
        file, "c", name, strength, informed, False, 0.0, 0.1, {"log_mel_l1_high": high, "lsd": lsd}, high, high
    )


def test_the_front_has_what_no_other_beats_in_both() -> None:
    rows = [row("codec", 0, 3, 1.0), row("a", 1, 2, 1.5), row("a", 2, 2.5, 1.6), row("b", 1, 1, 3), row("c", 1, 3, 1.2)]
    rows.append(row("optimise", 1, 0.1, 0.1, informed=True))
    front = [(r.enhancer, r.strength) for r in pareto_front(rows)]
    assert front == [("b", 1), ("a", 1), ("codec", 0)]
    # By definition: nothing on it is beaten, everything off it is.
    blind = rows[:-1]
    for one in blind:
        beaten = any(
            (o.scores["log_mel_l1_high"] <= one.scores["log_mel_l1_high"] and o.scores["lsd"] < one.scores["lsd"])
            or (o.scores["log_mel_l1_high"] < one.scores["log_mel_l1_high"] and o.scores["lsd"] <= one.scores["lsd"])
            for o in blind
        )
        assert beaten != ((one.enhancer, one.strength) in front)


def test_medians_are_over_files() -> None:
    rows = [row("a", 1, high, 1.0, file=str(high)) for high in (1, 5, 2)]
    (found,) = summarise(rows)
    assert found.file == "3 files"
    assert found.scores["log_mel_l1_high"] == 2
    assert len(summarise([*rows, replace(rows[0], strength=2.0)])) == 2


def test_the_figure_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    rows = [row("codec", 0, 3, 1.0), row("a", 1, 2, 1.5), row("b", 1, 1, 3, informed=True)]
    assert draw_front(rows, tmp_path / "f.png").stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["f.png"]
    with pytest.raises(OutputError, match="cannot write"):
        draw_front(rows, tmp_path / "f.png" / "g.png")
    assert [p.name for p in tmp_path.iterdir()] == ["f.png"]


def test_without_matplotlib_there_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="figures need matplotlib"):
        draw_front([], tmp_path / "f.png")
