"""The ladder's page: rungs without weights have a line, and what the weights expect is drawn and judged."""

from __future__ import annotations

import pytest
import torch

from polyres.codec.ladder.climb import LATENT, LATENT_RANGE, MEL_GIVEN, MEL_RANGE_NAT, LadderRow, _measured
from polyres.codec.ladder.page import (
    GOLDEN,
    PICTURE_ROWS,
    Distributions,
    _mel_rows,
    distribution_picture,
    distribution_table,
    ladder_page,
)
from polyres.codec.ladder.tables import Middle, cell, ladder_markdown, ladder_table


def row(
    rung: str, metric: str = "log_mel_l1", value: float = 0.5, file: str = "a.wav", golden: bool = False
) -> LadderRow:
    return LadderRow(file, "toy", rung, "", metric, "nat", value, golden=golden)


def measured(golden_mean: float = -3.0, latent_mean: float = 0.0) -> Distributions:
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(500, 8, generator=generator, dtype=torch.float64) - 3
    golden = torch.randn(500, 8, generator=generator, dtype=torch.float64) + golden_mean
    latent = 2 * torch.randn(4000, 4, generator=generator, dtype=torch.float64) + latent_mean
    limits = LATENT_RANGE[0] * 2, LATENT_RANGE[1] * 2
    return Distributions(
        [_measured(MEL_GIVEN, mel, MEL_RANGE_NAT), _measured(LATENT, latent, limits)],
        [_measured(MEL_GIVEN, golden, MEL_RANGE_NAT)],
        2.0,
        "a test says so",
    )


def test_rungs_that_are_left_out_keep_their_place_in_the_table() -> None:
    rows = [row("identity"), row("R0"), row("R6"), row("R9")]
    table = ladder_table(rows, "", missing={"R10": "no weights", "R4": "no mel spectrogram"})
    assert [line[0] for line in table.rows] == ["identity", "R0", "R4", "R6", "R9", "R10"]
    assert table.rows[-1][1] == "bandwidth extension (no weights)"
    assert "| R10 | bandwidth extension (no weights) |" in ladder_markdown(
        rows, ["R0", "R10"], {"R10": "no weights"}, "c"
    )


@pytest.mark.parametrize(
    ("golden", "latent", "verdicts"),
    [(-3.0, 0.0, ["near", "near"]), (2.0, 0.0, ["far off", "near"]), (-3.0, 1.5, ["near", "far off"])],
)
def test_what_is_far_from_what_is_expected_is_named(golden: float, latent: float, verdicts: list[str]) -> None:
    table = distribution_table(measured(golden, latent))
    lines = {line[0]: line for line in table.rows}
    assert [lines[MEL_GIVEN][-1], lines[LATENT][-1]] == verdicts
    assert lines[LATENT][3] == "0.00 ± 2.00"
    assert lines[GOLDEN][3:] == ("–", "–", "–")
    assert "a test says so" in table.notes[0]
    share = int(lines[LATENT][4].split()[0])
    assert share >= 97 if latent == 0 else share < 80


def test_the_page_holds_the_chart_only_where_something_was_measured() -> None:
    rows = [row("identity"), row("R0")]
    with_chart = ladder_page(rows, ["R0"], {}, {}, "c <b>", measured())
    assert "What the weights expect" in with_chart
    assert "class='chart' src='data:image/png;base64," in with_chart
    assert "<b>" not in with_chart
    assert "What the weights expect" not in ladder_page(rows, ["R0"], {}, {}, "c")


def test_the_chart_is_a_picture_also_without_a_latent() -> None:
    given = measured()
    alone = Distributions([given.files[0]], [], 1.0, "")
    for one in (given, alone):
        assert distribution_picture(one).startswith(b"\x89PNG")


def test_pictures_have_rows_of_equal_distance_in_pitch() -> None:
    level = torch.arange(513.0)[:, None].expand(513, 4)
    rows = _mel_rows(level, 44100)
    assert rows.shape == (PICTURE_ROWS, 4)
    assert torch.equal(rows[:, 0].sort().values, rows[:, 0])
    # Half of the rows show what lies below 4 kHz, and none is left out between.
    hz = rows[:, 0] / 512 * 22050
    assert 2000 < float(hz[PICTURE_ROWS // 2]) < 4000
    assert float(hz[-1]) > 21900


def test_an_interval_that_is_one_number_is_not_written() -> None:
    assert cell(Middle(1.0, 1.0, 1.0, 3), 2) == "1.00"
    assert cell(Middle(1.0, 0.5, 1.0, 3), 2) == "1.00 [0.50, 1.00]"
