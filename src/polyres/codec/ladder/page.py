"""The ladder as one HTML page with players and spectrograms inside it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch

from polyres.audio.files import read_audio
from polyres.codec.ladder.climb import (
    CELLS,
    LATENT,
    LATENT_RANGE,
    MEL_DECODED,
    MEL_GIVEN,
    MEL_RANGE_NAT,
    Distribution,
    LadderRow,
    joined,
    overlap,
)
from polyres.codec.ladder.rungs import RUNGS
from polyres.codec.ladder.tables import INVALID, closing_lines, ladder_table, rung_table
from polyres.core.tables import MISSING, Table
from polyres.dsp.mel import hz_from_mel, mel_from_hz
from polyres.report.figures import canvas, colour, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


CLIP_S = 4.0
RANGE_DB = 80.0
N_FFT = 1024
PICTURE_ROWS, PICTURE_COLUMNS = 128, 360

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1500px;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}
th,td{padding:.28rem .4rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th{background:#f3f4f6}td.w,th.w{text-align:left;white-space:normal}
td small{color:#666;font-size:9.5px}td{vertical-align:top}
td.w:nth-child(2){min-width:10rem}
td.w:first-child{white-space:nowrap;font-weight:600}
td.no{color:#8a8a8a;font-style:italic}
.note{color:#555;font-size:13px;max-width:70rem}
ul.most{background:#fff7e6;border-left:4px solid #d55e00;padding:.7rem 1rem .7rem 2rem}
.takes{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:1rem}
figure{margin:0;border:1px solid #ddd;border-radius:6px;padding:.6rem}
figure img{width:100%;height:128px;display:block;image-rendering:auto;border-radius:3px}
img.chart{max-width:100%;width:1100px;display:block}
figcaption{font-size:13px;min-height:2.6em}audio{width:100%;height:32px;margin-top:.4rem}
"""


def ladder_page(
    rows: Sequence[LadderRow],
    names: Sequence[str],
    missing: Mapping[str, str],
    sounds: Mapping[str, Mapping[str, Path]],
    codec: str,
    distributions: Distributions | None = None,
) -> str:
    """Write the page.

    Args:
        names: rungs that were asked for.
        missing: those left out, with the reason.
        sounds: by file, label to a wave file; the original first.
        distributions: of mel spectra and latents, if they were measured.

    Returns:
        HTML that needs no other file.
    """
    files = len({row.file for row in rows if not row.golden})
    table = ladder_table(rows, "", missing=missing)
    closing = "".join(f"<li>{escape(line)}</li>" for line in closing_lines(rows, [RUNGS.build(n) for n in names]))
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Ladder of {escape(codec)}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<h1>Ladder of {escape(codec)}, {files} file{'s' if files != 1 else ''}</h1>",
        f"<h2>What loses most</h2><ul class='most'>{closing}</ul>",
        f"<h2>Scores</h2>{_html(table)}",
        f"<h2>Rungs</h2>{_html(rung_table(missing, names))}",
    ]
    if distributions is not None and distributions.files:
        picture = _uri(distribution_picture(distributions), "image/png")
        parts.append("<h2>What the weights expect</h2>" + _html(distribution_table(distributions)))
        parts.append(f"<img class='chart' src='{picture}' alt='histograms and averages of mel spectra and latents'>")
    for file, takes in sounds.items():
        parts.append(f"<h2>{escape(file)}</h2><div class='takes'>{''.join(_figures(takes))}</div>")
    if sounds:
        note = f"Up to {CLIP_S:g} s of each. Black is {RANGE_DB:g} dB below the loudest bin of the original; "
        parts.append(f"<p class='note'>{note}frequency grows as the ear hears it (mel) to half of the sample rate.</p>")
    return "\n".join([*parts, "</body></html>\n"])


def _html(table: Table) -> str:
    """Turn a table into HTML."""

    def row(cells: Sequence[str], tag: str) -> str:
        marks = [
            " class='w'" if place < table.text_columns else " class='no'" if cell == INVALID else ""
            for place, cell in enumerate(cells)
        ]
        return "<tr>" + "".join(f"<{tag}{m}>{_small(c)}</{tag}>" for m, c in zip(marks, cells, strict=True)) + "</tr>"

    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table.notes)
    body = "".join(row(cells, "td") for cells in table.rows)
    return f"<div class='wide'><table>{row(table.header, 'th')}{body}</table></div>{notes}"


def _small(text: str) -> str:
    """Put the interval of a median on a line of its own."""
    value, bracket, interval = escape(text).partition(" [")
    return f"{value}<br><small>[{interval}</small>" if bracket else value


def _figures(takes: Mapping[str, Path]) -> list[str]:
    """Draw and embed every take; all on the scale of the first."""
    top: float | None = None
    found = []
    for label, path in takes.items():
        samples, rate_hz = read_audio(path)
        count = min(samples.shape[1], round(CLIP_S * rate_hz))
        start = (samples.shape[1] - count) // 2
        clip = samples[:, start : start + count].T
        level = _levels(clip)
        top = float(level.max()) if top is None else top
        picture = _uri(_picture(level - top, rate_hz), "image/png")
        sound = _uri(_flac(clip, rate_hz), "audio/flac")
        name = label.partition(" ")[0]
        title = f": {RUNGS.build(name).title}" if name in RUNGS else ""
        title += f" ({rate_hz / 1000:g} kHz)"
        found.append(
            f"<figure><figcaption><b>{escape(label)}</b>{escape(title)}</figcaption>"
            f"<img src='{picture}' alt='spectrogram of {escape(label)}'><audio controls preload='none' src='{sound}'>"
            "</audio></figure>"
        )
    return found


def _levels(clip: np.ndarray) -> torch.Tensor:
    """Spectrogram of the mono mix in dB, `[F, N]`."""
    mono = torch.from_numpy(clip.mean(axis=1))
    hop = max(1, len(mono) // PICTURE_COLUMNS)
    spectrum = torch.stft(mono, N_FFT, hop, window=torch.hann_window(N_FFT), return_complex=True)
    return 10 * torch.log10(spectrum.abs().square() + 1e-12)


def _mel_rows(level: torch.Tensor, rate_hz: int) -> torch.Tensor:
    """Bring `[F, N]` to rows of equal distance in pitch, each the loudest of its bins."""
    top = float(mel_from_hz(torch.tensor(rate_hz / 2)))
    edges_hz = hz_from_mel(torch.linspace(0, top, PICTURE_ROWS + 1))
    edges = (edges_hz / (rate_hz / 2) * (level.shape[0] - 1)).round().long().tolist()
    return torch.stack([level[low : max(high, low + 1)].amax(dim=0) for low, high in pairwise(edges)])


def _picture(level: torch.Tensor, rate_hz: int) -> bytes:
    from matplotlib.image import imsave

    held = io.BytesIO()
    imsave(held, _mel_rows(level, rate_hz).numpy(), vmin=-RANGE_DB, vmax=0, cmap="magma", origin="lower", format="png")
    return held.getvalue()


def _flac(clip: np.ndarray, rate_hz: int) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, np.clip(clip, -1, 1), rate_hz, format="FLAC", subtype="PCM_16")
    return held.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


GOLDEN = "mel of the golden file"
NEAR_STD = 0.5
"""How far a mean may be from what is expected, in standard deviations of that, before the table marks it."""


@dataclass(frozen=True)
class Distributions:
    """What a ladder measured on the way."""

    files: Sequence[Distribution]  # of all files but golden ones
    golden: Sequence[Distribution]  # of golden files
    expected_std: float  # of latents
    reason: str  # where that is from

    def merged(self) -> dict[str, Distribution]:
        """Put files together: by name of the picture, that of golden files as GOLDEN."""
        names = dict.fromkeys(one.name for one in self.files)
        found = {name: joined([one for one in self.files if one.name == name]) for name in names}
        golden = [one for one in self.golden if one.name == MEL_GIVEN]
        return {**found, **({GOLDEN: joined(golden)} if golden else {})}


def distribution_table(given: Distributions) -> Table:
    """Write the distances from what the weights expect as a table, one line per spectrogram."""
    found = given.merged()
    expected = found.get(GOLDEN) or found.get(MEL_DECODED)
    lines: list[tuple[str, ...]] = []
    for name, one in found.items():
        wanted: tuple[float, float] | None = None
        common = math.nan
        if name == LATENT:
            wanted = (0.0, given.expected_std)
            common = _normal_overlap(one, given.expected_std)
        elif expected is not None and one is not expected:
            wanted, common = (expected.mean, expected.std), overlap(one, expected)
        far = wanted is not None and wanted[1] > 0 and abs(one.mean - wanted[0]) > NEAR_STD * wanted[1]
        told = MISSING if wanted is None else f"{wanted[0]:.2f} ± {wanted[1]:.2f}"
        share = MISSING if math.isnan(common) else f"{100 * common:.0f} %"
        verdict = MISSING if wanted is None else "far off" if far else "near"
        lines.append((name, str(one.frames), f"{one.mean:.2f} ± {one.std:.2f}", told, share, verdict))
    what = "golden file, which the chain made itself" if GOLDEN in found else "mel that the decoder gives"
    notes = (
        f"mel spectra in nat, expected is the {what}; latents: 0 ± {given.expected_std:.3g} ({given.reason}). "
        f"In common: of two histograms. Far off: the mean by more than {NEAR_STD} expected standard deviations.",
    )
    return Table("", ("picture", "frames", "mean ± std", "expected", "in common", "verdict"), lines, 1, notes)


def _normal_overlap(one: Distribution, std: float) -> float:
    """Share that a histogram of latents has in common with the normal distribution."""
    low, high = (limit * std for limit in LATENT_RANGE)
    width = (high - low) / CELLS
    edges = [0.5 * (1 + math.erf((low + width * cell) / std / math.sqrt(2))) for cell in range(CELLS + 1)]
    total = max(1, sum(one.counts))
    return sum(min(count / total, edges[cell + 1] - edges[cell]) for cell, count in enumerate(one.counts))


def distribution_picture(given: Distributions) -> bytes:
    """Draw histograms and averages per bin as a PNG file."""
    found = given.merged()
    mels = {name: one for name, one in found.items() if name != LATENT}
    latent = found.get(LATENT)
    figure, panels = canvas(2, 2 if latent else 1, width=6.0, height=2.7)
    _draw_histograms(panels[0], mels, MEL_RANGE_NAT)
    panels[0].set(title="mel spectra", xlabel="log magnitude (nat)", ylabel="share of values")
    _draw_bins(panels[1], mels)
    panels[1].set(title="average of every mel band ± standard deviation", xlabel="band", ylabel="nat")
    if latent is not None:
        std = given.expected_std
        limits = LATENT_RANGE[0] * std, LATENT_RANGE[1] * std
        _draw_histograms(panels[2], {LATENT: latent}, limits)
        width = (limits[1] - limits[0]) / CELLS
        places = [limits[0] + width * (cell + 0.5) for cell in range(CELLS)]
        normal = [width * math.exp(-((x / std) ** 2) / 2) / std / math.sqrt(2 * math.pi) for x in places]
        panels[2].plot(places, normal, color="#555555", linestyle="--", label="expected")
        panels[2].set(title="latent", xlabel="value", ylabel="share of values")
        panels[2].legend(frameon=False)
        panels[3].axhspan(-std, std, color="#bbbbbb", alpha=0.35, label="expected")
        _draw_bins(panels[3], {LATENT: latent})
        panels[3].set(title="average of every latent channel ± standard deviation", xlabel="channel", ylabel="value")
    for panel in panels:
        tidy(panel)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    return held.getvalue()


def _draw_histograms(panel: Axes, found: dict[str, Distribution], limits: tuple[float, float]) -> None:
    width = (limits[1] - limits[0]) / CELLS
    edges = [limits[0] + width * cell for cell in range(CELLS + 1)]
    for number, (name, one) in enumerate(found.items()):
        total = max(1, sum(one.counts))
        panel.stairs([count / total for count in one.counts], edges, color=colour(number), label=name, linewidth=1.5)
    panel.legend(frameon=False)


def _draw_bins(panel: Axes, found: dict[str, Distribution]) -> None:
    for number, one in enumerate(found.values()):
        places = range(len(one.bin_mean))
        pairs = list(zip(one.bin_mean, one.bin_std, strict=True))
        panel.plot(places, one.bin_mean, color=colour(number), linewidth=1.5)
        low, high = [mean - std for mean, std in pairs], [mean + std for mean, std in pairs]
        panel.fill_between(places, low, high, color=colour(number), alpha=0.15, linewidth=0)
