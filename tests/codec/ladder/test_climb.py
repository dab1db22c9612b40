from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from polyres.codec.enhance.sweep import Chain
from polyres.codec.ladder.climb import ENVELOPE_LAG, LadderRow, climb, control_waves, envelope_lag, missing_rungs
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
