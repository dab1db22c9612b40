"""Figures of the paper: what they show is checked on closed forms, the files only for being there and the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from polyres.report.figures import canvas, spare
from polyres.separation.fusion_report.figures import save
from polyres.separation.fusion_report.report import build_report
from polyres.separation.fusion_report.weights_over_time import ONLY, FusionSubject
from polyres.separation.model import Separator
from polyres.separation.variants import VARIANTS
from polyres.study.paper.architecture import architecture_figure
from polyres.study.paper.audio import BEFORE_S, HOP, Excerpt, find_attack, level_spectrogram, spectrogram_figure
from polyres.study.paper.curves import cost_quality_figure, curve, curves_figure, loss_of, points
from polyres.study.paper.data import PaperStudy, read_paper_study, score_of
from polyres.study.paper.weights import (
    ArmWeights,
    arm_weights,
    read_reports,
    spectrum_figure,
    stem_spectra,
    third_octaves,
    weights_figure,
)
from tests.study.studies import RATE_HZ, TINY, Made, MadeArm, write_made

THREE = {"n_fft": [2048, 4096, 8192]}


def texts(figure: object) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]


def study_of(folder: Path, made: Made) -> PaperStudy:
    return read_paper_study(write_made(folder, made))


# -- attacks and spectrograms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_s", [0.3, 1.0, 1.7])
def test_the_attack_is_found_within_a_frame(at_s: float) -> None:
    rng = np.random.default_rng(0)
    wave = 0.001 * rng.standard_normal((2, 2 * RATE_HZ)).astype(np.float32)
    start = round(at_s * RATE_HZ)
    length = wave.shape[1] - start
    wave[:, start:] += np.sin(np.arange(length)) * np.exp(-np.arange(length) / 800)
    found = find_attack(torch.from_numpy(wave), RATE_HZ)
    assert abs(found - start) <= 0.011 * RATE_HZ


def test_a_jump_out_of_silence_beats_a_louder_swell() -> None:
    time = torch.arange(2 * RATE_HZ) / RATE_HZ
    swell = torch.sin(2 * math.pi * 200 * time) * (0.5 + 0.5 * (time > 1.5))
    swell[: RATE_HZ // 2] = 0
    assert abs(find_attack(swell[None], RATE_HZ) - RATE_HZ // 2) <= 0.011 * RATE_HZ


def test_no_attack_in_silence_or_in_next_to_nothing() -> None:
    assert find_attack(torch.zeros(2, RATE_HZ), RATE_HZ) == 0
    assert find_attack(torch.ones(2, 100), RATE_HZ) == 0


def test_a_tone_lies_in_its_bin() -> None:
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(RATE_HZ) / RATE_HZ)
    level = level_spectrogram(tone.expand(2, -1))
    assert int(level[:, level.shape[1] // 2].argmax()) == round(1000 * 1024 / RATE_HZ)
    assert level.shape[1] == RATE_HZ // HOP + 1


def test_spectrograms_of_everybody_on_one_scale() -> None:
    wave = torch.randn(2, round(0.6 * RATE_HZ), generator=torch.Generator().manual_seed(0))
    names = ("mixture", "reference", "one", "two", "three")
    figure = spectrogram_figure(Excerpt("song", "drums", 1.0, RATE_HZ, dict.fromkeys(names, wave)))
    images = [panel.images[0] for panel in figure.axes if panel.images]
    assert len(images) == 5
    assert {image.get_clim() for image in images} == {(-70.0, 0.0)}
    assert images[0].get_extent()[0] == -1e3 * BEFORE_S
    assert f"drums of song at {1 + BEFORE_S:.2f} s" in texts(figure)


# -- spectra ----------------------------------------------------------------------------------------------------------


def test_the_energy_of_a_tone_lies_in_its_third_octave() -> None:
    time = torch.arange(4 * RATE_HZ) / RATE_HZ
    stems = torch.stack([torch.sin(2 * math.pi * hz * time).expand(2, -1) for hz in (110.0, 1110.0)])
    spectra = stem_spectra([stems, stems], ("low", "high"), RATE_HZ)
    edges = third_octaves(RATE_HZ)
    for place, hz in enumerate((110.0, 1110.0)):
        band = int(np.digitize(hz, edges)) - 1
        assert spectra.shares[place][band] > 0.95
        assert sum(spectra.shares[place]) == pytest.approx(1)
    assert spectra.tracks == 2
    assert edges[3] == pytest.approx(2 * edges[0])
    assert edges[-1] <= RATE_HZ / 2


def test_a_silent_stem_has_no_spectrum() -> None:
    spectra = stem_spectra([torch.zeros(1, 2, RATE_HZ)], ("none",), RATE_HZ)
    assert all(math.isnan(share) for share in spectra.shares[0])
    spectrum_figure(spectra, []).draw_without_rendering()


def test_band_weights_are_stacked_to_100_percent() -> None:
    config = TINY.with_values({**THREE, "output": {"kind": "band_weights", "bands_hz": [250, 1000], "band_taps": 129}})
    subject = FusionSubject("banded", Separator(config), {ONLY: dict(Separator(config).state_dict())})
    report = build_report(subject, ONLY)
    spectra = stem_spectra([torch.randn(4, 2, RATE_HZ)], TINY.sources, RATE_HZ)
    figure = spectrum_figure(spectra, [("banded", report)])
    bars = figure.axes[4].patches
    assert len(bars) == 3 * 3
    assert sum(bar.get_height() for bar in bars[::3]) == pytest.approx(100)
    assert [bar.get_x() for bar in bars[:3]] == [25.0, 250.0, 1000.0]
    assert "banded\nweight, %" in texts(figure)


# -- curves, costs, weights, architecture -----------------------------------------------------------------------------


def _write_metrics(folder: Path, arm: str, seed: int, scores: list[float]) -> None:
    rows = [
        {
            "epoch": place,
            "step": 5 * place,
            "elapsed_s": 60.0 * place,
            "loss": {"total": 10 - score},
            "valid": {"raw": {"score": score - 1}, "ema": {"score": score}},
        }
        for place, score in enumerate(scores, start=1)
    ]
    path = folder / "runs" / arm / f"seed{seed}" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves_are_means_over_the_epochs_that_all_runs_have(tmp_path: Path) -> None:
    folder = write_made(tmp_path, Made([MadeArm("one"), MadeArm("three", THREE)]))
    _write_metrics(folder, "one", 1, [1.0, 2.0, 3.0])
    _write_metrics(folder, "one", 2, [2.0, 4.0])
    study = read_paper_study(folder)
    found = curve(study.arms[0], score_of, "step")
    assert found is not None
    assert (found.places, found.mean, found.low, found.high) == ([5, 10], [1.5, 3.0], [1, 2], [2, 4])
    assert curve(study.arms[1], score_of, "step") is None
    assert loss_of({"loss": None}) is None
    assert score_of({"valid": {}}) is None
    figure = curves_figure(study)
    assert figure is not None
    assert [panel.get_xlabel() for panel in figure.axes] == ["step", "training time, min", "step"]
    assert list(figure.axes[1].lines[0].get_xdata()) == [1.0, 2.0]


def test_no_curves_without_metrics(tmp_path: Path) -> None:
    assert curves_figure(study_of(tmp_path, Made([MadeArm("one")]))) is None


def test_costs_against_scores(tmp_path: Path) -> None:
    arms = [
        MadeArm("one", macs_per_s=1e9),
        MadeArm("three", THREE, gain=1, macs_per_s=8e9),
        MadeArm("new", scored=False),
    ]
    study = study_of(tmp_path, Made(arms))
    assert [(one.name, one.cost) for one in points(study, "macs_per_s")] == [("one", 1e9), ("three", 8e9)]
    assert points(study, "energy_wh") == []
    figure = cost_quality_figure(study)
    assert figure is not None
    assert [panel.get_xscale() for panel in figure.axes] == ["log", "linear", "linear"]
    assert cost_quality_figure(study_of(tmp_path / "new", Made([MadeArm("new", scored=False)]))) is None


def test_weights_of_learned_fusions(tmp_path: Path) -> None:
    arms = [
        MadeArm("shared", {**THREE, "output": {"kind": "weights", "favour_n_fft": 8192}}, weights=True),
        MadeArm("own", THREE, weights=True),
        MadeArm("conv", {**THREE, "output": {"kind": "conv"}}, weights=True),
        MadeArm("mean", {**THREE, "output": {"kind": "mean"}}, weights=True),
        MadeArm("one", weights=True),
        MadeArm("none yet", THREE),
    ]
    study = study_of(tmp_path, Made(arms, seeds=(1, 2)))
    shown = arm_weights([study], read_reports([study]))
    assert [(one.name, one.implicit, one.weights.shape) for one in shown] == [
        ("shared", False, (2, 4, 3)),
        ("own", False, (2, 4, 3)),
        ("conv", True, (2, 4, 3)),
    ]
    figure = weights_figure(shown)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([21.19, 21.19, 57.61], abs=0.01)  # one group for all stems
    assert "share of kernel energy" in texts(figure)


def test_weights_per_stem_with_whiskers_between_runs() -> None:
    weights = np.array([[[0.2, 0.8], [0.6, 0.4]], [[0.4, 0.6], [0.6, 0.4]]])
    figure = weights_figure([ArmWeights("own", (2048, 4096), ("drums", "bass"), weights, False)])
    panel = figure.axes[0]
    assert [bar.get_height() for bar in panel.patches] == pytest.approx([30, 60, 70, 40])
    whiskers = [np.diff(path[:, 1]).item() for lines in panel.collections for path in lines.get_segments()]  # type: ignore[attr-defined]
    assert sorted(whiskers) == pytest.approx([0, 0, 20, 20])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["drums", "bass"]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_architecture_of_every_variant(name: str) -> None:
    config = VARIANTS[name]
    figure = architecture_figure(config, name)
    said = texts(figure)
    assert all(f"STFT {n_fft}\n" in said for n_fft in config.n_fft)
    assert said.count("encoder") == len(config.n_fft) + config.wave_branch
    assert ("transformer" in said) == (config.transformer.kind != "none")
    assert ("fusion" in said) == (len(config.n_fft) > 1)
    figure.draw_without_rendering()


def test_no_text_of_the_architecture_leaves_its_box() -> None:
    from matplotlib.patches import FancyBboxPatch

    for name in ("2nn", "htdemucs_48", "w5", "mrx"):
        figure = architecture_figure(VARIANTS[name], name)
        figure.draw_without_rendering()
        panel = figure.axes[0]
        boxes = [patch.get_window_extent() for patch in panel.patches if isinstance(patch, FancyBboxPatch)]
        for text in panel.texts:
            inner = text.get_window_extent()
            if text.get_text() and text.get_position()[1] > 0:
                assert any(
                    b.x0 <= inner.x0 and inner.x1 <= b.x1 and b.y0 <= inner.y0 and inner.y1 <= b.y1 for b in boxes
                ), text


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        paths = save(architecture_figure(VARIANTS["n"], "n"), tmp_path / folder / "figure")
        assert all(path.stat().st_size > 5000 for path in paths)
    for name in ("figure.png", "figure.pdf"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_panels_that_nothing_was_drawn_into_are_hidden() -> None:
    _, panels = canvas(2, 2)
    spare(panels, 3)
    assert [panel.get_visible() for panel in panels] == [True, True, True, False]
