"""The fusion report, its tables and its figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import AnalysisError, OutputError
from polyres.separation.fusion_report.figures import (
    correlation_figure,
    draw_report,
    heat_figure,
    lines_figure,
)
from polyres.separation.fusion_report.report import (
    FusionReport,
    build_report,
    choose_weights,
    disagreement_bits,
    divergence_bits,
    entropy_bits,
    entropy_percent,
    spread,
    summarise,
)
from polyres.separation.fusion_report.text import markdown, report_tables
from polyres.separation.fusion_report.tracks import DataOptions, analyse_data
from polyres.separation.fusion_report.weights_over_time import FusionSubject, load_fusion_subject
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator
from tests.separation.fusion_report.runs import small, tables, write_run, write_tracks

BANDS_HZ = (250.0, 2000.0)


def shifted(model: Separator, by: float) -> Separator:
    with torch.no_grad():
        model.output.table.logits[0] += by
    return model


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> FusionSubject:
    models = [shifted(small(), by) for by in (0.0, 0.5, 1.0)]
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, models, {"ema_0.9": shifted(small(), 0.8), "ema_0.99": shifted(small(), 0.6)})
    return load_fusion_subject(str(folder))


@pytest.fixture(scope="module")
def report(subject: FusionSubject, tmp_path_factory: pytest.TempPathFactory) -> FusionReport:
    folder = write_tracks(tmp_path_factory.mktemp("tracks"), (4000,))
    return build_report(subject, "best", analyse_data(subject.use("best"), DataOptions(folder)))


def report_of(model: Separator, folder: Path) -> FusionReport:
    subject = load_fusion_subject(str(save_separator(model, folder / "model.safetensors", dtype="fp32")))
    return build_report(subject, choose_weights(subject, None))


def test_the_best_weights_are_chosen_else_the_longest_average(subject: FusionSubject) -> None:
    assert choose_weights(subject, None) == "best"
    assert choose_weights(subject, "raw") == "raw"
    rest = FusionSubject(subject.name, subject.model, {k: v for k, v in subject.states.items() if k != "best"})
    assert choose_weights(rest, None) == "ema_0.99"
    assert choose_weights(FusionSubject(subject.name, subject.model, {}), None) == "last epoch"
    with pytest.raises(AnalysisError, match=r"has no weights 'ema'; there are: best, raw"):
        choose_weights(subject, "ema")


def test_stages_are_found_with_their_nature(report: FusionReport) -> None:
    assert [(s.name, s.kind, s.weight_kind, s.learned) for s in report.stages] == [
        ("bottleneck", "weights", "explicit", True),
        ("output", "source_weights", "explicit", True),
    ]
    assert list(report.stages[1].tables) == ["best", "raw", "ema_0.9", "ema_0.99"]
    assert report.stages[1].tables["best"].weights == pytest.approx(
        torch.tensor(tables(shifted(small(), 1.0))["output"])
    )


def test_raw_weights_are_compared_with_every_average(report: FusionReport) -> None:
    raw, average = (torch.tensor(tables(shifted(small(), by))["output"]) for by in (1.0, 0.6))
    difference = report.stages[1].differences[1]
    assert difference.average == "ema_0.99"
    assert difference.largest == pytest.approx(float((raw - average).abs().max()), abs=1e-6)
    assert difference.mean == pytest.approx(float((raw - average).abs().mean()), abs=1e-6)
    assert report.stages[0].differences[0].largest == 0


def test_epochs_are_followed(report: FusionReport) -> None:
    evolution = report.evolution["output"]
    assert evolution.epochs == [1, 2, 3]
    assert evolution.summaries[1].weights == pytest.approx(
        torch.tensor(tables(shifted(small(), 0.5))["output"]).double()
    )
    assert report.gradient_epochs[1] == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_a_run_without_weights_yet_shows_its_last_epoch(subject: FusionSubject) -> None:
    bare = FusionSubject(subject.name, subject.model, {}, subject.epochs)
    report = build_report(bare, choose_weights(bare, None))
    assert list(report.stages[1].tables) == ["last epoch"]
    assert "last epoch %" in markdown(report)


@pytest.mark.parametrize(
    ("kind", "weight_kind"),
    [
        ("mean", "explicit"),
        ("sum", "none"),
        ("conv", "implicit"),
        ("progressive", "none"),
        ("band_weights", "explicit"),
    ],
)
def test_any_kind_of_fusion(tmp_path: Path, kind: str, weight_kind: str) -> None:
    report = report_of(small({"output.kind": kind, "output.bands_hz": BANDS_HZ}), tmp_path)
    output = report.stages[1]
    assert (output.kind, output.weight_kind) == (kind, weight_kind)
    assert bool(output.tables) == (weight_kind != "none")
    assert output.learned == (kind not in ("mean", "sum"))
    text = markdown(report)
    assert ("share of kernel energy" in text) == ("They do not mix" in text) == (weight_kind == "implicit")
    assert ("weights per band" in text) == (kind == "band_weights")
    assert draw_names(report, tmp_path / "figures") == {"bottleneck_heat_map"} | (
        {"output_heat_map"} if weight_kind != "none" else set()
    )


def draw_names(report: FusionReport, folder: Path) -> set[str]:
    return {path.stem for path in draw_report(report, folder)}


def test_implicit_weights_are_shares_of_kernel_energy(tmp_path: Path) -> None:
    model = small({"output.kind": "conv"})
    energy = model.output.kernel.detach().square().sum(dim=-1).view(2, 2, 3).mean(dim=1)
    shares = report_of(model, tmp_path).stages[1].tables["saved"].weights
    torch.testing.assert_close(torch.tensor(shares), energy / energy.sum(dim=1, keepdim=True))


def test_bands_average_to_the_weights(tmp_path: Path) -> None:
    output = report_of(small({"output.kind": "band_weights", "output.bands_hz": BANDS_HZ}), tmp_path).stages[1]
    assert output.bands_hz == BANDS_HZ
    torch.testing.assert_close(torch.tensor(output.bands).mean(dim=0), torch.tensor(output.tables["saved"].weights))


def test_bands_of_the_bottleneck_are_those_of_the_body(tmp_path: Path) -> None:
    body = {"body.kind": "band_split", "body.blocks": 1, "body.bands": [[2, 1000.0], [1, 1000.0], [1, 9000.0]]}
    model = small({**body, "body.frame_hop": 256, "body.time_mixing": "conv", "bottleneck.kind": "band_weights"})
    report = report_of(model, tmp_path)
    stage = report.stages[0]
    assert stage.bands_hz == (1000.0, 2000.0, 3000.0)
    torch.testing.assert_close(torch.tensor(stage.bands).mean(dim=0), torch.tensor(stage.tables["saved"].weights))
    table = next(table for table in report_tables(report) if table.title.startswith("bottleneck: weights per band"))
    assert [row[:2] for row in table.rows] == [
        ("all sources", band) for band in ("0–1000", "1000–2000", "2000–3000", "3000–…")
    ]
    assert SeparatorConfig(n_fft=(2048,)).plan().edges_hz() == (5512.5, 11025.0, 16537.5)


def test_effects_stand_beside_every_weight(report: FusionReport) -> None:
    weights = next(table for table in report_tables(report) if table.title.startswith("output: source_weights"))
    assert weights.header[-2:] == ("knock-out dB", "Shapley dB")
    assert len(weights.rows) == 2 * 3
    row = next(row for row in weights.rows if row[:2] == ("vocals", "1024"))
    assert report.data is not None
    assert report.data.shapley_db is not None
    assert float(row[2]) == pytest.approx(100 * report.stages[1].tables["best"].weights[1][1], abs=0.006)
    assert float(row[-2]) == pytest.approx(report.data.knock_out_db[1][1], abs=0.006)
    assert float(row[-1]) == pytest.approx(report.data.shapley_db[1][1], abs=0.006)
    assert "A weight is no importance" in " ".join(weights.notes)


def test_every_table_is_whole(report: FusionReport) -> None:
    for table in report_tables(report):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.slow
def test_json_has_numbers_or_nothing(report: FusionReport, subject: FusionSubject, tmp_path: Path) -> None:
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["sources"] == ["drums", "vocals"]
    folder = write_tracks(tmp_path, (4000,), silent="drums")
    lacking = build_report(subject, "best", analyse_data(subject.use("best"), DataOptions(folder)))
    assert lacking.to_dict()["data"]["full_db"][0] is None
    json.dumps(lacking.to_dict(), allow_nan=False)
    assert "| – |" in markdown(lacking)
    assert draw_names(lacking, tmp_path / "figures")


@pytest.mark.slow
def test_figures_of_a_run(report: FusionReport, tmp_path: Path) -> None:
    paths = draw_report(report, tmp_path / "figures")
    stems = ["bottleneck_over_epochs", "bottleneck_heat_map", "output_over_epochs", "output_heat_map"]
    stems += ["divergence_over_epochs", "branch_correlation"]
    assert [path.name for path in paths] == [f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")]
    starts = {path.suffix: path.read_bytes()[:4] for path in paths}
    assert starts == {".png": b"\x89PNG", ".pdf": b"%PDF"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {path.name for path in paths}
    before = {path: path.read_bytes() for path in paths}
    draw_report(report, tmp_path / "figures")
    assert {path: path.read_bytes() for path in paths} == before


def test_lines_show_the_weights(report: FusionReport) -> None:
    figure = lines_figure(report, report.stages[1], report.evolution["output"])
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == ["drums", "vocals"]
    lines = {line.get_label(): line for line in panels[1].get_lines()}
    assert set(lines) == {"uniform", "512", "1024", "2048"}
    expected = [100 * summary.weights[1][2] for summary in report.evolution["output"].summaries]
    assert list(lines["2048"].get_ydata()) == pytest.approx(expected)
    shared = lines_figure(report, report.stages[0], report.evolution["bottleneck"])
    assert [panel.get_title() for panel in shared.axes] == ["all sources"]


def test_heat_maps_show_weights_and_effects(report: FusionReport) -> None:
    panels = heat_figure(report, report.stages[1]).axes
    assert [panel.get_title() for panel in panels] == [
        "weight, %",
        "knock-out loss, dB nSDR",
        "Shapley value, dB nSDR",
    ]
    shown = torch.tensor(panels[0].images[0].get_array().tolist())
    torch.testing.assert_close(shown, 100 * torch.tensor(report.stages[1].tables["best"].weights))
    assert report.data is not None
    torch.testing.assert_close(
        torch.tensor(panels[1].images[0].get_array().tolist()), torch.tensor(report.data.knock_out_db).t()
    )


def test_correlations_need_tracks(subject: FusionSubject) -> None:
    with pytest.raises(AnalysisError, match=r"correlations need tracks; add --data"):
        correlation_figure(build_report(subject, "best"))


def test_figures_that_cannot_be_written(report: FusionReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*bottleneck_over_epochs.png: .*; choose another --out"):
        draw_report(report, tmp_path / "file")


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_uniform_weights_are_even(count: int) -> None:
    weights = torch.full((4, count), 1 / count)
    assert entropy_percent(weights).tolist() == pytest.approx([100.0] * 4)
    assert divergence_bits(weights).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert entropy_bits(weights).tolist() == pytest.approx([math.log2(count)] * 4)
    assert spread(weights).tolist() == [0.0] * 4


def test_one_resolution_alone() -> None:
    weights = torch.eye(4)
    assert entropy_percent(weights).tolist() == [0.0] * 4
    assert divergence_bits(weights).tolist() == [2.0] * 4
    assert spread(weights).tolist() == [1.0] * 4
    # Every source has one of its own: knowing the source tells all 2 bits.
    assert float(disagreement_bits(weights)) == pytest.approx(2.0)


def test_a_known_entropy() -> None:
    assert float(entropy_bits(torch.tensor([0.5, 0.25, 0.25]))) == pytest.approx(1.5)
    assert float(entropy_percent(torch.tensor([0.5, 0.5, 0.0, 0.0]))) == pytest.approx(50.0)


def test_shared_weights_do_not_disagree() -> None:
    weights = torch.tensor([0.7, 0.2, 0.1]).expand(4, 3)
    assert float(disagreement_bits(weights)) == pytest.approx(0.0, abs=1e-12)


def test_no_weights_at_all_have_no_entropy() -> None:
    assert math.isnan(float(entropy_bits(torch.zeros(3))))


@given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=7).filter(lambda row: sum(row) > 1e-3))
def test_bounds_and_invariance(row: list[float]) -> None:
    weights = torch.tensor(row, dtype=torch.float64)
    percent, bits = float(entropy_percent(weights)), float(divergence_bits(weights))
    assert -1e-9 <= percent <= 100 + 1e-9
    assert bits == pytest.approx(math.log2(len(row)) * (1 - percent / 100), abs=1e-9)
    assert float(entropy_percent(weights.flip(0) * 3)) == pytest.approx(percent)


def test_a_summary_holds_plain_numbers() -> None:
    summary = summarise(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert summary.weights == [[0.5, 0.5], [1.0, 0.0]]
    assert summary.entropy_percent == [100.0, 0.0]
    assert summary.spread == [0.0, 1.0]
    assert summary.divergence_bits == [0.0, 1.0]
    assert summary.disagreement_bits == pytest.approx(-0.75 * math.log2(0.75) + 0.5 - 0.5)
