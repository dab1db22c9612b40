"""What resolutions do on tracks, against direct computation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyres.core.errors import AnalysisError, InputError
from polyres.datasets.tracks import load_track
from polyres.metrics.separation import nsdr
from polyres.separation.fusion_report.tracks import (
    DataOptions,
    DataReport,
    analyse_data,
    branch_gradients,
    correlations,
)
from polyres.separation.model import Separator
from tests.separation.fusion_report.runs import RATE_HZ, SMALL, small, write_tracks

WHOLE = 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tracks(tmp_path_factory.mktemp("tracks"), (9000, 5000))


def stems_of(folder: Path, number: int) -> Tensor:
    return load_track(folder / f"track {number}", SMALL.sources, RATE_HZ)


@torch.no_grad()
def estimates(model: Separator, stems: Tensor, active: list[int] | None) -> Tensor:
    pieces = [model(piece.sum(dim=0)[None], active)[0] for piece in stems.split(SMALL.segment_samples, dim=-1)]
    return torch.cat(pieces, dim=-1)


def scores(model: Separator, folder: Path, active: list[int] | None) -> Tensor:
    rows = [nsdr(stems_of(folder, i), estimates(model, stems_of(folder, i), active)) for i in range(2)]
    return torch.stack(rows).mean(dim=0)


def listen(model: Separator, folder: Path, seconds: float = WHOLE) -> DataReport:
    return analyse_data(model, DataOptions(folder, seconds=seconds))


@pytest.mark.parametrize("changes", [{}, {"wave_branch": True}, {"output.kind": "conv"}], ids=["table", "wave", "conv"])
def test_scores_are_those_of_the_model_with_these_resolutions(folder: Path, changes: dict[str, object]) -> None:
    model = small(changes)
    report = listen(model, folder)
    full = scores(model, folder, None)
    assert report.full_db == pytest.approx(full.tolist())
    assert report.alone_db is not None
    for r in range(3):
        without = scores(model, folder, [i for i in range(3) if i != r])
        assert report.knock_out_db[r] == pytest.approx((full - without).tolist(), abs=1e-6)
        assert report.alone_db[r] == pytest.approx(scores(model, folder, [r]).tolist(), abs=1e-6)
    expected = scores(model, folder, []).tolist() if model.wave is not None else [0.0, 0.0]
    assert report.empty_db == pytest.approx(expected)


def test_shapley_values_share_out_the_score(folder: Path) -> None:
    report = listen(small({"wave_branch": True}), folder)
    assert report.shapley_db is not None
    shared = torch.tensor(report.shapley_db).sum(dim=0)
    gained = torch.tensor(report.full_db) - torch.tensor(report.empty_db)
    torch.testing.assert_close(shared, gained)
    assert gained.abs().min() > 0.1


def test_a_resolution_without_weight_is_worth_nothing(folder: Path) -> None:
    model = small()
    with torch.no_grad():
        model.output.table.logits.view(2, 3)[:, 1] = -300
        model.bottleneck.table.logits[1] = -300
    report = listen(model, folder)
    assert report.shapley_db is not None
    assert report.knock_out_db[1] == [0.0, 0.0]
    assert report.shapley_db[1] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert min(map(abs, report.knock_out_db[0])) > 1e-3


def test_without_resolutions_and_wave_branch_there_is_silence(folder: Path) -> None:
    model = small({"output.kind": "unet", "output.widths": [4], "output.strides": [4]})
    assert listen(model, folder).empty_db == pytest.approx([0.0, 0.0], abs=1e-9)


def test_levels_and_correlations(folder: Path) -> None:
    model = small()
    report = listen(model, folder)
    stems = [stems_of(folder, i) for i in range(2)]
    everything = torch.cat(stems, dim=-1).double()
    expected = 10 * torch.log10(everything.square().mean(dim=(1, 2)))
    assert report.reference_dbfs == pytest.approx(expected.tolist())
    with torch.no_grad():
        branches = torch.cat(
            [
                model(piece.sum(dim=0)[None], return_branches=True)[1][0]
                for track in stems
                for piece in track.split(SMALL.segment_samples, dim=-1)
            ],
            dim=-1,
        ).double()
    levels = 10 * torch.log10(branches.square().mean(dim=(2, 3)))
    torch.testing.assert_close(torch.tensor(report.level_dbfs, dtype=torch.float64), levels)
    for s in range(2):
        for waves, found in ((branches, report.correlation), (branches - everything, report.error_correlation)):
            a, b = waves[0, s].flatten(), waves[2, s].flatten()
            assert found[s][0][2] == pytest.approx(float(torch.nn.functional.cosine_similarity(a, b, dim=0)), abs=1e-6)
            assert found[s][1][1] == pytest.approx(1.0)


def test_correlations_of_known_products() -> None:
    assert correlations(torch.tensor([[4.0, -6.0], [-6.0, 9.0]])).tolist() == [[1, -1], [-1, 1]]
    assert math.isnan(correlations(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))[0, 1])


def test_gradients_are_those_of_a_backward_pass(folder: Path) -> None:
    model = small()
    target = stems_of(folder, 1)
    mix = target.sum(dim=0)[None]
    found = branch_gradients(model, mix, target)
    assert all(parameter.grad is None for parameter in model.parameters())
    (model(mix)[0] - target).abs().mean().backward()
    for norm, branch in zip(found.tolist(), model.branches, strict=True):
        grads = torch.cat([p.grad.flatten() for p in branch.parameters() if p.grad is not None])
        assert norm == pytest.approx(float(grads.norm()), rel=1e-4)
    report = listen(model, folder)
    assert sum(report.gradient_share) == pytest.approx(1.0)
    assert report.gradient_norm[0] / sum(report.gradient_norm) == pytest.approx(report.gradient_share[0])


def test_a_frozen_branch_has_no_gradient(folder: Path) -> None:
    model = small()
    model.branches[1].requires_grad_(False)
    target = stems_of(folder, 1)
    norms = branch_gradients(model, target.sum(dim=0)[None], target)
    assert norms[1] == 0
    assert norms[0] > 0


def test_weights_that_move_with_time(folder: Path) -> None:
    report = listen(small({"output.kind": "gated", "output.gate_channels": 4}), folder)
    assert report.moving_weights is not None
    assert report.moving_deviation is not None
    assert torch.tensor(report.moving_weights).sum(dim=0).tolist() == pytest.approx([1.0, 1.0])
    assert 0 < max(map(max, report.moving_deviation)) < 0.5
    assert listen(small(), folder).moving_weights is None


def test_without_shapley_values_only_few_coalitions_are_tried(folder: Path) -> None:
    model = small()
    seen: list[object] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[1] if len(args) > 1 else None))
    report = analyse_data(model, DataOptions(folder, WHOLE, max_tracks=1, shapley=False))
    # two pieces: everything and three knock-outs each, and one pass for the gradients
    assert len(seen) == 2 * 4 + 1
    assert report.shapley_db is None
    assert report.alone_db is None
    whole = analyse_data(model, DataOptions(folder, WHOLE, max_tracks=1))
    assert report.knock_out_db == whole.knock_out_db
    assert report.tracks == ["track 0"]


def test_excerpts_and_progress(folder: Path) -> None:
    said: list[str] = []
    report = analyse_data(small(), DataOptions(folder, seconds=0.5), said.append)
    assert report.seconds == pytest.approx(1.0)
    assert said == ["1/2 track 0: 8 passes", "2/2 track 1: 8 passes"]


def test_a_source_that_no_track_has(tmp_path: Path) -> None:
    report = listen(small(), write_tracks(tmp_path, silent="drums"))
    assert report.tracks_with == [0, 1]
    assert math.isnan(report.full_db[0])
    assert math.isfinite(report.full_db[1])


def test_wrong_folders(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(InputError, match=r"gone"):
        listen(model, tmp_path / "gone")
    with pytest.raises(AnalysisError, match=r"has no track folders; each needs stems such as drums.wav"):
        listen(model, tmp_path)
    write_tracks(tmp_path, silent="drums")
    silent = small({"sources": ["drums", "other"]})
    with pytest.raises(AnalysisError, match=r"all stems under .* are silent; give tracks with drums, other"):
        listen(silent, tmp_path)


def test_too_many_resolutions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyres.separation.fusion_report.tracks.MAX_SHAPLEY", 2)
    with pytest.raises(AnalysisError, match=r"3 resolutions make 8 coalitions; add --no-shapley"):
        listen(small(), folder)
