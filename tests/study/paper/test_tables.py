"""Tables of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.core.errors import AnalysisError, InputError
from polyres.report.tables import latex_table
from polyres.separation.variants import VARIANTS
from polyres.study.paper.audio import styles_of
from polyres.study.paper.data import PaperStudy, basis, differences, method_of, read_paper_study, read_studies
from polyres.study.paper.tables import (
    channels_table,
    differences_table,
    fusion_table,
    main_table,
    metrics_table,
    resolutions_table,
    styles_table,
)
from tests.report.test_tables import rows_of
from tests.study.studies import Made, MadeArm, write_made

THREE = {"n_fft": [2048, 4096, 8192]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> PaperStudy:
    arms = [
        MadeArm("one", macs_per_s=5e8),
        MadeArm("three_", THREE, gain=1.0, wobble=0.2),
        MadeArm("conv", {**THREE, "output": {"kind": "conv"}}, gain=0.5),
        MadeArm("wide", {**THREE, "channels": 16}, gain=2.0),
        MadeArm("later", {"n_fft": [2048, 8192]}, scored=False, macs_per_s=None),
    ]
    folder = tmp_path_factory.mktemp("study")
    return read_paper_study(write_made(folder, Made(arms, metrics=("nsdr", "attack_time_error"))))


def test_main_table(study: PaperStudy) -> None:
    made = main_table([study])
    header = made.table.header
    rows = {row[0]: dict(zip(header, row, strict=True)) for row in made.table.rows}
    assert header[3:8] == ("vocals", "drums", "bass", "other", "mean")
    assert rows["one"]["mean"] == "3.35 ± 0.00"
    assert rows["three_"]["mean"] == "4.35 ± 0.20"  # three seeds, 0.2 apart
    assert {rows["later"][name] for name in ("drums", "mean", "GMAC per s")} == {"–"}
    assert rows["HTDemucs (draft)"]["mean"] == "–"
    best = {(made.table.rows[row][0], header[column]) for row, column in made.bold}
    assert ("wide", "mean") in best
    assert ("one", "GMAC per s") in best
    assert "**5.35 ± 0.00**" in made.markdown()
    cells = rows_of(latex_table(made.table, "tab:1", made.bold))
    assert {len(row) for row in cells} == {len(header)}
    assert [row[0] for row in cells][2] == r"three\_"
    assert "--" in cells[5]


def test_resolutions_and_channels(study: PaperStudy) -> None:
    made = resolutions_table([study])
    shown = [(row[0], row[1]) for row in made.table.rows]
    assert shown[:3] == [("4096", "made: one"), ("2048 8192", "made: later"), ("2048 4096 8192", "made: three_")]
    assert shown[3:] == [("2048 4096 8192 16384", "–"), ("1024 2048 4096 8192 16384", "–")]
    made = channels_table([study])
    assert [row[:2] for row in made.table.rows[:2]] == [("4", "made: three_"), ("16", "made: wide")]
    assert [row[0] for row in made.table.rows[2:]] == ["24", "32", "48"]


def test_fusions(study: PaperStudy) -> None:
    rows = {row[0]: row for row in fusion_table([study]).table.rows}
    assert rows["source_weights"][4:7] == ("explicit", "4.35 ± 0.20", "12")
    assert rows["conv"][4:7] == ("implicit", "3.85 ± 0.00", "3 096")
    assert rows["unet"][1:] == ("–",) * 7


def test_against_the_reference(study: PaperStudy) -> None:
    rows = {row[1]: row for row in differences_table([study]).table.rows}
    assert rows["wide"][4:7] == ("better", "+2.00", "+2.00 to +2.00")
    assert rows["later"][4:] == ("–",) * 5


def test_metrics_of_which_less_is_better(study: PaperStudy) -> None:
    made = metrics_table([study])
    assert made.table.header[2:] == ("nsdr, dB ↑", "attack_time_error, ms ↓")
    best = {(made.table.rows[row][1], column) for row, column in made.bold}
    assert best == {("wide", 2), ("wide", 3)}


def test_styles(study: PaperStudy) -> None:
    styles = styles_of(study)
    assert set(styles.values()) == {"calm", "loud"}
    made = styles_table([study], {study.name: styles})
    assert made is not None
    rows = {row[1]: row for row in made.table.rows}
    assert rows["one"][2:] == ("3.30 ± 0.00", "3.40 ± 0.00")
    assert rows["later"][2:] == ("–", "–")
    assert styles_table([study], {study.name: {}}) is None


def test_an_arm_with_tracks_missing_does_not_compare(tmp_path: Path) -> None:
    folder = write_made(tmp_path, Made([MadeArm("one"), MadeArm("part", THREE, gain=5)], seeds=(1,)))
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[:-4]))
    made = main_table([read_paper_study(folder)])
    place = made.table.header.index("mean")
    assert made.table.rows[1][place].endswith("*")
    assert not {cell for cell in made.bold if cell[1] == place}


def test_what_tells_arms_apart(study: PaperStudy) -> None:
    one, three, conv, wide, _ = study.arms
    assert differences(three, conv) == ["model.output.kind"]
    assert differences(one, conv) == ["model.n_fft"]  # one resolution fuses nothing
    assert set(differences(one, wide)) == {"model.n_fft", "model.channels"}
    assert basis(one, three) == "equal steps"


def test_methods_by_their_build() -> None:
    for name in ("n", "n5", "nf", "w5", "nn", "2nn", "dn", "dnf"):
        assert method_of(VARIANTS[name].with_values({"channels": 8})) == name
    assert method_of(VARIANTS["htdemucs_24"]) == "htdemucs"
    assert method_of(VARIANTS["nn"].with_values({"n_fft": [512, 1024]})) is None


def test_folders_that_are_no_studies(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no study \(study.json is missing\)"):
        read_paper_study(tmp_path)
    folder = write_made(tmp_path / "made", Made([MadeArm("one")]))
    with pytest.raises(AnalysisError, match="two studies are called 'made'"):
        read_studies([folder, folder])
    metrics = folder / "runs" / "one" / "seed1" / "metrics.jsonl"
    metrics.write_text('{"epoch": 1}\n{"epo')
    assert read_paper_study(folder).arms[0].runs[0].epochs == [{"epoch": 1}]
    metrics.write_text("no\n{}\n")
    with pytest.raises(AnalysisError, match="line 1: no JSON"):
        read_paper_study(folder)
