from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from polyres.batch.jobs import Job, OutputOptions
from polyres.codec.load import LoadedCodec, Take
from polyres.codec.track import (
    Chain,
    chain_of,
    check_free,
    codec_label,
    invalid_metrics,
    pieces,
    reconstruct_track,
    score_takes,
)
from polyres.core.errors import ConfigError, OutputError
from polyres.metrics.reconstruction.metrics import score
from tests.codec.toy_codec import ToyCodec


def noise(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, length, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_takes_give_back_what_they_were_filled_with(tmp_path: Path) -> None:
    wave = noise(1000)
    take = Take(tmp_path / "a.f32", 2).fill(wave.split(300, dim=1))
    assert take.length_samples == 1000
    assert take.peak == float(wave.abs().max())
    assert torch.equal(take.read(0, 1000), wave)
    assert torch.equal(take.read(450, 777), wave[:, 450:777])


def test_pieces_are_equal_and_at_most_30_s() -> None:
    assert pieces(300, 10) == [(0, 300)]
    assert pieces(301, 10) == [(0, 150), (150, 301)]
    assert pieces(5, 10) == [(0, 5)]


def test_scores_of_a_long_file_are_medians_over_pieces(tmp_path: Path) -> None:
    wave = noise(4000 * 80)
    gains = torch.ones(4000 * 80)
    gains[: 320000 // 3] = 0.0  # a piece of its own is lost
    other = wave * 0.9 * gains
    one = Take(tmp_path / "a.f32", 2).fill([wave])
    two = Take(tmp_path / "b.f32", 2).fill([other])
    found = score_takes(one, two, 4000)
    alone = score(wave[:, 120000:200000], other[:, 120000:200000], 4000, ["snr", "band_error_low"])
    assert found["snr"] == pytest.approx(20.0, abs=0.01)
    assert found["band_error_low"] == pytest.approx(alone["band_error_low"], abs=0.01)


def test_metrics_of_single_samples_are_invalid_where_phases_are_made_up() -> None:
    assert {"snr", "si_sdr", "correlation"} <= set(invalid_metrics(phase_sensitive=False))
    assert invalid_metrics(phase_sensitive=True) == {}


def test_a_codec_without_mel_latents_has_no_place_for_enhancers() -> None:
    with pytest.raises(ConfigError, match=r"those of toy are no such picture; it can be given gain_match"):
        chain_of(LoadedCodec(ToyCodec(), "cpu"), "frequency")


def test_results_have_a_folder_by_name_or_last_part_of_a_path() -> None:
    assert codec_label("audioldm2:sampled_latent") == "audioldm2_sampled_latent"
    assert codec_label("some/where/mine.safetensors") == "mine.safetensors"


def test_what_a_format_cannot_hold_is_resampled_and_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", noise(4000).T.numpy(), 7000, subtype="FLOAT")
    job = Job(tmp_path / "in.wav", tmp_path / "out" / "in")
    done = reconstruct_track(Chain(LoadedCodec(ToyCodec(), "cpu")), job, OutputOptions("mp3", "24"))
    assert f"{job.input}: 7000 Hz resampled to 8000 Hz, which mp3 can hold; wav keeps all" in done.warnings
    assert soundfile.info(done.files["codec"]).samplerate == 8000


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    check_free(tmp_path / "a.wav", overwrite=False)
    (tmp_path / "a.wav").write_text("x")
    check_free(tmp_path / "a.wav", overwrite=True)
    with pytest.raises(OutputError, match=r"a\.wav is there already; --overwrite replaces it"):
        check_free(tmp_path / "a.wav", overwrite=False)
