"""Evaluation of models and of stems that are there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from polyres.core.errors import ConfigError, InputError
from polyres.datasets.stems import TracksConfig, TracksDataset
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.load import LoadedSeparator
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.options import SeparateOptions
from polyres.study.evaluate.run import EvaluateOptions, count_jobs, evaluate
from polyres.study.evaluate.subjects import GUESSES, FolderSubject, GuessSubject, ModelSubject, Origin, parts_of

RATE = 8000
SOURCES = ("drums", "bass", "other", "vocals")


def write_tracks(root: Path, gain: float = 1.0, seconds: float = 3.0, names: tuple[str, ...] = ("a", "b")) -> Path:
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        (root / name).mkdir(parents=True)
        for source in SOURCES:
            wave = gain * 0.1 * rng.standard_normal((round(seconds * RATE), 2))
            soundfile.write(root / name / f"{source}.wav", wave, RATE, subtype="FLOAT")
    return root


def tracks_of(root: Path) -> TracksDataset:
    return TracksDataset(TracksConfig(roots=(str(root),), sample_rate_hz=RATE))


def small(n_fft: tuple[int, ...] = (512, 1024, 2048)) -> ModelSubject:
    config = SeparatorConfig(
        n_fft=n_fft,
        channels=4,
        sample_rate_hz=RATE,
        segment_samples=RATE,
        head="mask",
        wave_branch=False,
        transformer=TransformerConfig(kind="none"),
        output=FusionConfig(kind="mean"),
    )
    separator = LoadedSeparator(Separator(config), "small", "cpu", "fp32")
    return ModelSubject(separator, Origin(separator.weights_id, "f" * 16, "abc", 7), SeparateOptions())


def silent(*_: str) -> None:
    """Report nothing."""


def test_a_model_that_gives_equal_shares_scores_like_equal_shares(tmp_path: Path) -> None:
    root = write_tracks(tmp_path / "data")
    rows = evaluate([small()], tracks_of(root), tmp_path / "out", EvaluateOptions(("nsdr", "sdr", "sir")), silent)
    assert len(rows) == 2 * 4 * 3
    for row in rows:
        if row.metric == "nsdr":  # |s - m/4|^2 = 9/16 + 3/16 of a stem's power
            assert row.value == pytest.approx(10 * np.log10(1 / 0.75), abs=0.2)
        assert (row.fingerprint, row.commit, row.seed, row.unit) == ("f" * 16, "abc", 7, "dB")
        assert row.frames == (None if row.metric == "nsdr" else 3)
    stored = json.loads((tmp_path / "out" / "museval" / "small" / "test" / "a.json").read_text())
    frames = [frame["metrics"]["SDR"] for frame in stored["targets"][1]["frames"]]
    (bass,) = [row for row in rows if (row.track, row.source, row.metric) == ("a", "bass", "sdr")]
    assert (bass.value, bass.window_mean) == pytest.approx((np.median(frames), np.mean(frames)), abs=1e-5)
    assert bass.value != bass.window_mean
    assert [target["name"] for target in stored["targets"]] == list(SOURCES)
    assert set(stored["targets"][0]["frames"][0]["metrics"]) == {"SDR", "SIR"}


def test_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    root, out = write_tracks(tmp_path / "data"), tmp_path / "out"
    told: list[str] = []

    def report(model: str, part: str, track: str) -> None:
        told.append(track)

    first = evaluate([small()], tracks_of(root), out, EvaluateOptions(("nsdr",)), report)
    text = (out / "scores.jsonl").read_bytes()
    assert evaluate([small()], tracks_of(root), out, EvaluateOptions(("nsdr",)), report) == first
    assert (out / "scores.jsonl").read_bytes() == text
    assert told == ["a", "b"]
    write_tracks(root, names=("c",))
    assert count_jobs([small()], tracks_of(root), out, EvaluateOptions(("nsdr",))) == 1
    more = evaluate([small()], tracks_of(root), out, EvaluateOptions(("nsdr", "sdr")), report)
    assert told[2:] == ["a", "b", "c"]
    assert {(row.track, row.metric) for row in more} == {(t, m) for t in "abc" for m in ("nsdr", "sdr")}


def test_workers_change_nothing(tmp_path: Path) -> None:
    root = write_tracks(tmp_path / "data", names=("a", "b", "c"))
    rows = [
        evaluate([small()], tracks_of(root), tmp_path / str(workers), EvaluateOptions(("sdr",), workers), silent)
        for workers in (1, 3)
    ]
    assert rows[0] == rows[1]


def test_parts_of_a_model(tmp_path: Path) -> None:
    whole = small()
    parts = parts_of(whole)
    assert [part.part for part in parts] == [
        *("only 512", "only 1024", "only 2048"),
        *("without 512", "without 1024", "without 2048"),
    ]
    mixture = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    stems = whole.separator.listening([512, 2048]).separate(mixture, RATE)
    found = parts[4].estimate("t", mixture, SOURCES, RATE)
    assert torch.equal(found, torch.stack([stems[source] for source in SOURCES]))
    with pytest.raises(ConfigError, match="small has no resolutions to take apart"):
        parts_of(small((1024,)))


def test_stems_from_files(tmp_path: Path) -> None:
    root = write_tracks(tmp_path / "data")
    made = write_tracks(tmp_path / "made", gain=0.5)
    rows = evaluate(
        [FolderSubject(made, "made")], tracks_of(root), tmp_path / "out", EvaluateOptions(("nsdr",)), silent
    )
    assert [row.value for row in rows] == pytest.approx([20 * np.log10(2)] * 8, abs=1e-3)
    assert rows[0].weights_id is None


def test_what_a_model_has_to_beat() -> None:
    mixture = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    found = {name: GuessSubject(name).estimate("t", mixture, SOURCES, RATE) for name in GUESSES}
    assert all(estimate.shape == (4, 2, 100) for estimate in found.values())
    assert not found["silence"].any()
    assert torch.equal(found["mixture"][2], mixture)
    assert torch.allclose(found["share"].sum(dim=0), mixture)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda made: (made / "a" / "bass.wav").unlink(), "no estimate of 'bass' in '.*a'; it needs bass.wav"),
        (
            lambda made: [
                soundfile.write(made / "a" / f"{s}.wav", np.zeros((9000, 2)), RATE, subtype="FLOAT") for s in SOURCES
            ],
            r"drums\.wav' has 9000 samples, the track has 24000; give estimates of the whole track",
        ),
        (
            lambda made: soundfile.write(made / "a" / "other.wav", np.zeros((9000, 2)), RATE, subtype="FLOAT"),
            r"other\.wav' has 9000 samples, the track has 24000; give estimates of the whole track",
        ),
        (
            lambda made: soundfile.write(made / "a" / "bass.wav", np.full((24000, 2), np.nan), RATE, subtype="FLOAT"),
            "bass.wav",
        ),
    ],
)
def test_unusable_estimates_are_named(tmp_path: Path, change: object, text: str) -> None:
    root, made = write_tracks(tmp_path / "data"), write_tracks(tmp_path / "made")
    change(made)  # type: ignore[operator]
    with pytest.raises(InputError, match=text):
        evaluate([FolderSubject(made, "made")], tracks_of(root), tmp_path / "out", EvaluateOptions(("nsdr",)), silent)
    assert not (tmp_path / "out" / "scores.jsonl").exists()


def test_estimates_at_another_rate_are_refused(tmp_path: Path) -> None:
    root, made = write_tracks(tmp_path / "data"), write_tracks(tmp_path / "made")
    soundfile.write(made / "a" / "other.wav", np.zeros((36000, 2)), 12000)
    with pytest.raises(InputError, match=r"other.wav' is at 12000 Hz, the tracks are scored at 8000 Hz; resample"):
        evaluate([FolderSubject(made, "made")], tracks_of(root), tmp_path / "out", EvaluateOptions(("nsdr",)), silent)


@pytest.mark.parametrize("subset", ["test", "train"])
def test_estimates_may_lie_as_museval_has_them(tmp_path: Path, subset: str) -> None:
    made = write_tracks(tmp_path / "made" / subset, gain=0.5).parent
    options = EvaluateOptions(("nsdr",))
    rows = evaluate(
        [FolderSubject(made, "made")], tracks_of(write_tracks(tmp_path / "data")), tmp_path / "o", options, silent
    )
    assert {row.track for row in rows} == {"a", "b"}
    assert [row.value for row in rows] == pytest.approx([20 * np.log10(2)] * 8, abs=1e-3)


def test_a_model_that_gives_no_numbers_is_named(tmp_path: Path) -> None:
    whole = small()
    with torch.no_grad():
        next(whole.separator.model.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"small \(all\) on 'a': the waveforms contain NaN or infinite samples"):
        evaluate(
            [whole], tracks_of(write_tracks(tmp_path / "data")), tmp_path / "out", EvaluateOptions(("nsdr",)), silent
        )


def test_missing_stems_of_a_model_are_named(tmp_path: Path) -> None:
    root = write_tracks(tmp_path / "data")
    (root / "a" / "bass.wav").rename(root / "a" / "guitar.wav")
    tracks = TracksDataset(TracksConfig(roots=(str(root),), sample_rate_hz=RATE, sources=("drums", "guitar")))
    with pytest.raises(ConfigError, match=r"small has no stem 'guitar'; it has drums, bass, other, vocals"):
        evaluate([small()], tracks, tmp_path / "out", EvaluateOptions(("nsdr",)), silent)


def test_twins_are_refused(tmp_path: Path) -> None:
    root = write_tracks(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"two models are called 'small \(all\)'"):
        evaluate([small(), small()], tracks_of(root), tmp_path / "out", EvaluateOptions(), silent)


@pytest.mark.parametrize(("values", "text"), [({"metrics": ()}, "no metrics"), ({"workers": 0}, "workers 0 is not")])
def test_impossible_options_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        EvaluateOptions(**values)  # type: ignore[arg-type]
