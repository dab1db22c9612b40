from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from polyres.codec.enhance.sweep import Chain
from polyres.codec.ladder.climb import (
    CELLS,
    ENVELOPE_LAG,
    LATENT,
    MEL_DECODED,
    MEL_GIVEN,
    Distribution,
    LadderRow,
    _measured,
    climb,
    control_waves,
    distributions,
    envelope_lag,
    expected_std,
    joined,
    missing_rungs,
    overlap,
)
from polyres.codec.ladder.rungs import RUNGS, Piece, Take, Workshop, piece_of
from polyres.codec.ladder.tables import judge, summarise
from polyres.codec.load import load_codec
from polyres.core.errors import InputError, UnknownNameError

RATE_HZ = 16000


def song(length: int = 12 * 640, seed: int = 7) -> Tensor:
    t = torch.arange(length) / RATE_HZ
    noise = torch.randn(2, length, generator=torch.Generator().manual_seed(seed))
    return (0.3 * torch.sin(2 * torch.pi * 440 * t) + 0.05 * noise).float()


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(Chain(load_codec("audioldm2_tiny", "cpu").model))


@pytest.fixture(scope="module")
def piece(shop: Workshop) -> Piece:
    return piece_of(song(), RATE_HZ, shop.codec, "a.wav")


@pytest.fixture(scope="module")
def rows(shop: Workshop, piece: Piece) -> list[LadderRow]:
    names = ("R0", "R1", "R2", "R4", "R5", "R6", "R8")
    return [row for step in climb(shop, piece, [RUNGS.build(n) for n in names]) for row in step.rows]


def value(rows: list[LadderRow], label: str, metric: str) -> LadderRow:
    (found,) = [row for row in rows if row.label == label and row.metric == metric]
    return found


def test_lowest_rungs_lose_only_rounding(shop: Workshop, piece: Piece) -> None:
    for name, most in (("R0", 1e-6), ("R1", 1e-5)):
        (take,) = RUNGS.build(name).run(shop, piece)
        assert take.wave is not None
        assert float((take.wave - piece.reference).abs().max()) <= most


def test_controls_have_known_scores(rows: list[LadderRow]) -> None:
    assert value(rows, "identity", "snr").value == math.inf
    assert value(rows, "identity", "log_mel_l1").value == 0
    assert value(rows, "silence", "snr").value == 0
    # Noise as loud as the wave and independent of it: twice the energy is error.
    assert value(rows, "noise", "snr").value == pytest.approx(10 * math.log10(1 / 2), abs=0.2)
    assert value(rows, "noise", "gain").value == pytest.approx(0, abs=0.1)


def test_metrics_that_mean_nothing_have_no_number(rows: list[LadderRow]) -> None:
    for label in ("R2", "R4", "R6", "R8 transposed_layout"):
        for metric in ("snr", "si_sdr", "correlation", "lag"):
            row = value(rows, label, metric)
            assert math.isnan(row.value)
            assert "makes up its own phase" in str(row.invalid)
        assert value(rows, label, "lsd").invalid is None
    assert value(rows, "R5", "log_mel_l1").value > 0
    assert "no waveform" in str(value(rows, "R5", "lsd").invalid)
    assert value(rows, "R1", "snr").invalid is None
    assert value(rows, "R2", "log_mel_l1").value < value(rows, "R6", "log_mel_l1").value


def test_same_seed_same_rows(shop: Workshop, piece: Piece, rows: list[LadderRow]) -> None:
    names = ("R0", "R1", "R2", "R4", "R5", "R6", "R8")
    again = [row for step in climb(shop, piece, [RUNGS.build(n) for n in names]) for row in step.rows]
    assert [row.to_dict() for row in again] == [row.to_dict() for row in rows]


def test_rungs_that_a_codec_lacks_are_left_out_with_the_reason(shop: Workshop) -> None:
    assert list(missing_rungs(shop, RUNGS.names())) == ["R10"]
    wave = Workshop(Chain(load_codec("default", "cpu").model))
    missing = missing_rungs(wave, RUNGS.names())
    assert list(missing) == ["R3", "R4", "R5", "R7", "R8", "R9", "R10"]
    assert missing["R3"] == "polyres_wave has no mel spectrogram"
    with pytest.raises(UnknownNameError, match="unknown rung 'R11'; did you mean"):
        missing_rungs(shop, ["R11"])


@pytest.mark.parametrize(("band", "low_hz", "high_hz"), [("low", 0, 500), ("mid", 500, 4000), ("high", 4000, 9000)])
def test_a_rung_made_worse_on_purpose_is_named(
    shop: Workshop, piece: Piece, band: str, low_hz: float, high_hz: float
) -> None:
    def without_band(shop: Workshop, piece: Piece) -> Iterator[Take]:
        spectrum = torch.fft.rfft(piece.reference)
        hz = torch.fft.rfftfreq(piece.reference.shape[-1], 1 / RATE_HZ)
        kept = torch.where((hz >= low_hz) & (hz < high_hz), 0.01, 1.0)
        yield Take("", torch.fft.irfft(spectrum * kept, piece.reference.shape[-1]))

    rungs = [RUNGS.build("R0"), replace(RUNGS.build("R1"), run=without_band), RUNGS.build("R2")]
    rows = [row for step in climb(shop, piece, rungs) for row in step.rows]
    verdicts = judge(rows, rungs)
    assert verdicts[band].rung == "R1"
    assert verdicts[band].loss.value > 1
    honest = [RUNGS.build(name) for name in ("R0", "R1", "R2")]
    rows = [row for step in climb(shop, piece, honest) for row in step.rows]
    assert judge(rows, honest)[band].rung == "R2"


def test_several_files_have_medians_and_intervals(rows: list[LadderRow]) -> None:
    files = [replace(row, file=f"{n}.wav", value=row.value + n) for n in range(3) for row in rows]
    found = summarise(files)
    middle = found["R2", "lsd"]
    assert middle.value == pytest.approx(value(rows, "R2", "lsd").value + 1)
    assert middle.low == pytest.approx(middle.value - 1)
    assert middle.high == pytest.approx(middle.value + 1)
    assert middle.files == 3
    alone = summarise(rows)["R2", "lsd"]
    assert math.isnan(alone.low)
    assert found["R2", "snr"].invalid is not None


def test_rows_survive_json(rows: list[LadderRow]) -> None:
    for row in rows:
        again = LadderRow.from_dict(row.to_dict())
        assert again.to_dict() == row.to_dict()
        assert again.value == row.value or math.isnan(row.value)


def test_envelope_lag_of_a_delayed_wave_with_other_phases() -> None:
    generator = torch.Generator().manual_seed(3)
    bursts = torch.zeros(1, 8000)
    for start in (1000, 2300, 5100, 6000):
        bursts[:, start : start + 400] = 1
    one, other = (bursts * torch.randn(1, 8000, generator=generator) for _ in range(2))
    assert envelope_lag(one, other.roll(50, dims=-1), RATE_HZ) == pytest.approx(50, abs=8)
    assert math.isnan(envelope_lag(one, torch.zeros_like(one), RATE_HZ))


def test_silence_climbs_too(shop: Workshop) -> None:
    silent = piece_of(torch.zeros(1, 12 * 640), RATE_HZ, shop.codec, "s.wav")
    rows = [row for step in climb(shop, silent, [RUNGS.build("R0"), RUNGS.build("R2")]) for row in step.rows]
    assert value(rows, "R2", "log_mel_l1").value == 0
    assert math.isnan(value(rows, "R0", ENVELOPE_LAG).value)
    assert not control_waves(silent.reference, 0)["noise"].any()


def test_short_files_are_refused(shop: Workshop) -> None:
    with pytest.raises(InputError, match=r"0\.06 s are too short for audioldm2_tiny; 0\.32 s or more are needed"):
        piece_of(torch.zeros(1, 1000), RATE_HZ, shop.codec, "s.wav")


def normal(count: int, mean: float, std: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, 3, generator=generator, dtype=torch.float64)


def test_averages_and_histogram_of_known_values() -> None:
    values = torch.tensor([[0.0, 2.0], [1.0, 2.0], [2.0, 2.0], [99.0, 2.0]], dtype=torch.float64)
    one = _measured("x", values, (0.0, 4.0))
    assert one.bin_mean == pytest.approx([25.5, 2.0])
    assert one.bin_std == pytest.approx([float(values[:, 0].std(unbiased=False)), 0.0], abs=1e-6)
    assert sum(one.counts) == 8
    assert one.counts[0] == 1
    assert one.counts[-1] == 1  # what lies outside counts in the last cell
    assert one.counts[CELLS // 2] == 5
    assert Distribution.from_dict(one.to_dict()) == one


def test_files_together_are_as_one_file() -> None:
    values = normal(1000, 0.4, 1.3)
    whole = _measured("x", values, (-5.0, 5.0))
    parts = joined([_measured("x", values[:100], (-5.0, 5.0)), _measured("x", values[100:], (-5.0, 5.0))])
    assert parts.counts == whole.counts
    assert parts.frames == 1000
    assert parts.bin_mean == pytest.approx(whole.bin_mean)
    assert parts.bin_std == pytest.approx(whole.bin_std)
    assert parts.std == pytest.approx(float(values.std(unbiased=False)))


def test_overlap_of_normal_distributions() -> None:
    one = _measured("x", normal(20000, 0.0, 1.0), (-8.0, 8.0))
    assert overlap(one, one) == pytest.approx(1)
    other = _measured("x", normal(20000, 2.0, 1.0, 1), (-8.0, 8.0))
    # Two standard deviations apart: twice the tail beyond one.
    assert overlap(one, other) == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=0.02)


def test_a_piece_is_measured_before_in_and_after_the_autoencoder(shop: Workshop) -> None:
    wave = 0.2 * torch.randn(2, 12 * 640, generator=torch.Generator().manual_seed(1))
    piece = piece_of(wave, RATE_HZ, shop.codec, "a.wav")
    given, decoded, latent = distributions(shop, piece)
    assert [one.name for one in (given, decoded, latent)] == [MEL_GIVEN, MEL_DECODED, LATENT]
    mel = shop.chain.mel(piece.grouped).double()
    assert given.bin_mean == pytest.approx(mel.mean(dim=(0, 1)).tolist())
    z = shop.chain.encode(piece.grouped).double()
    assert latent.bin_mean == pytest.approx(z.mean(dim=(0, 2, 3)).tolist())
    assert latent.bin_std == pytest.approx(z.permute(1, 0, 2, 3).flatten(1).std(dim=1, unbiased=False).tolist())
    assert latent.frames == z.shape[0] * z.shape[2] * z.shape[3]


def test_the_default_codec_has_a_latent_among_other_numbers() -> None:
    wave = Workshop(Chain(load_codec("default", "cpu").model))
    codec = wave.codec
    samples = 0.2 * torch.randn(1, 8 * codec.hop_samples, generator=torch.Generator().manual_seed(1))
    piece = piece_of(samples, RATE_HZ, codec, "a.wav")
    given, decoded, latent = distributions(wave, piece)
    with torch.no_grad():
        z = codec.encode(piece.grouped)["latent"].double()
    assert latent.bin_mean == pytest.approx(z.mean(dim=(0, 2, 3)).tolist())
    assert decoded.frames == given.frames
    assert decoded.mean == pytest.approx(given.mean, abs=1.0)


def test_what_weights_expect(shop: Workshop) -> None:
    std, reason = expected_std(shop.codec)
    assert std == pytest.approx(1 / 0.41)
    assert "scaling factor 0.41" in reason
    std, reason = expected_std(load_codec("default", "cpu").model)
    assert (std, reason[:2]) == (1.0, "1,")
