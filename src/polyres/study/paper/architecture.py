"""Figure 1: the architecture of a separator, drawn from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyres.separation.model import SeparatorConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 11.0
ROW_IN = 0.62
BRANCH, SHARED, WAVE, ENDS = "#DCEBF7", "#FBE6D4", "#DDF0E4", "#F2F2F2"
EDGE = "0.35"


@dataclass(frozen=True)
class _Box:
    """A box: its middle, its half sizes, its text and its colour."""

    x: float
    y: float
    width: float
    height: float
    text: str
    fill: str

    @property
    def left(self) -> tuple[float, float]:
        """Middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        """Middle of the right side."""
        return self.x + self.width / 2, self.y


def architecture_figure(config: SeparatorConfig, name: str) -> Figure:
    """Draw branches, bottleneck, transformer and output fusion as the config has them."""
    from matplotlib.figure import Figure

    rows = len(config.n_fft) + config.wave_branch
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * rows + 1.5), layout="constrained")
    panel = figure.subplots()
    bottom = -0.75 if config.wave_branch else -0.55
    panel.set_xlim(0, 11.3)
    panel.set_ylim(bottom - 0.15, rows + 0.25)
    panel.set_axis_off()
    _draw(panel, config, rows)
    panel.set_title(f"{name}: {_title(config)}", fontsize=10.5)
    panel.text(5.65, bottom, _footer(config), ha="center", va="center", fontsize=8.5, color="0.25")
    return figure


def _title(config: SeparatorConfig) -> str:
    count = len(config.n_fft)
    resolutions = "1 resolution" if count == 1 else f"{count} resolutions"
    if config.body.kind == "band_split":
        return (
            f"{resolutions}, {config.plan().bins(0)} bands of {config.channels} channels, {config.body.blocks} blocks"
        )
    unit = "layers" if config.body.kind == "unet" else "levels"
    return f"{resolutions}, {config.channels} channels, {config.depth} {unit} per branch"


def _footer(config: SeparatorConfig) -> str:
    head = {"mapping": "spectrum mapped directly", "mask": "complex mask on the mixture"}[config.head]
    widths = " → ".join(map(str, config.unet_shape().widths()))
    if config.body.kind == "band_split":
        widths = f"{config.channels}"
    hop = f"{config.hop_length} samples" if config.hop_length else f"n_fft / {config.hop_ratio}"
    audio = f"{config.sample_rate_hz} Hz, {config.audio_channels} audio channels"
    return f"hop {hop}; channels per layer {widths}; head: {head}; {audio}"


def _draw(panel: Axes, config: SeparatorConfig, rows: int) -> None:
    middle = (rows - 1) / 2 + 0.25
    heights = [rows - 1 - place + 0.25 for place in range(rows)]
    several = len(config.n_fft) > 1
    tall = max(rows - 0.35, 1.0)
    mixture = _Box(0.55, middle, 0.9, 0.6, "mixture", ENDS)
    stems = _Box(10.72, middle, 1.0, 0.32 * len(config.sources) + 0.3, "\n".join(config.sources), ENDS)
    freq = [_branch(config, n_fft, y) for n_fft, y in zip(config.n_fft, heights[: len(config.n_fft)], strict=True)]
    shared = _Box(
        5.45, _centre(heights, len(config.n_fft)), 1.35, _span(len(config.n_fft)), _bottleneck(config), SHARED
    )
    fused = _Box(9.4, middle, 1.05, tall, _output(config, several), SHARED)
    wave = _wave(heights[-1]) if config.wave_branch else []
    attention = config.transformer.kind != "none"
    if attention:
        shared = _Box(shared.x, middle, shared.width, tall, shared.text, SHARED)
    for boxes in (*freq, wave):
        if not boxes:
            continue
        _arrow(panel, mixture.right, boxes[0].left)
        meets = attention or (boxes is not wave and several)
        inner = [(boxes[0], boxes[1]), (boxes[-2], boxes[-1])] if len(boxes) == 4 else []
        for first, second in inner:
            _arrow(panel, first.right, second.left)
        encoder, decoder = (boxes[1], boxes[2]) if len(boxes) == 4 else (boxes[0], boxes[1])
        if meets:
            _arrow(panel, encoder.right, (shared.left[0], encoder.y))
            _arrow(panel, (shared.right[0], decoder.y), decoder.left)
        else:
            _arrow(panel, encoder.right, decoder.left)
        _arrow(panel, boxes[-1].right, (fused.left[0], boxes[-1].y))
    _arrow(panel, fused.right, stems.left)
    drawn = [mixture, stems, fused, *wave, *(box for boxes in freq for box in boxes)]
    for box in [*drawn, *([shared] if several or attention else [])]:
        _box(panel, box)


def _centre(heights: list[float], count: int) -> float:
    return sum(heights[:count]) / count


def _span(count: int) -> float:
    return max(count - 0.35, 1.0)


def _branch(config: SeparatorConfig, n_fft: int, y: float) -> list[_Box]:
    length_ms = 1e3 * n_fft / config.sample_rate_hz
    return [
        _Box(2.05, y, 1.3, 0.62, f"STFT {n_fft}\n{length_ms:.3g} ms", BRANCH),
        _Box(3.7, y, 1.2, 0.62, "encoder", BRANCH),
        _Box(7.05, y, 1.1, 0.62, "decoder", BRANCH),
        _Box(8.25, y, 0.8, 0.62, "iSTFT", BRANCH),
    ]


def _wave(y: float) -> list[_Box]:
    return [_Box(2.85, y, 2.9, 0.62, "waveform encoder", WAVE), _Box(7.57, y, 2.15, 0.62, "waveform decoder", WAVE)]


def _bottleneck(config: SeparatorConfig) -> str:
    lines = []
    if len(config.n_fft) > 1:
        lines.append(f"to one grid,\nfuse:\n{_plain(config.bottleneck.kind)}")
    if config.transformer.kind != "none":
        cross = "cross-domain\n" if config.wave_branch else ""
        lines.append(f"{cross}transformer:\n{config.transformer.kind},\n{config.transformer.layers} layers")
    return "\n\n".join(lines)


def _output(config: SeparatorConfig, several: bool) -> str:
    if not several:
        return "sum" if config.wave_branch else "output"
    text = f"output\nfusion:\n{_plain(config.output.kind)}"
    if config.output.kind == "conv":
        text += f"\n{config.output.taps} taps"
    if not config.output.learned:
        text += "\n(fixed)"
    return text + ("\n\n+ wave" if config.wave_branch else "")


def _plain(kind: str) -> str:
    return kind.replace("_", "\n")


def _box(panel: Axes, box: _Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (box.x - box.width / 2, box.y - box.height / 2)
    style = "round,pad=0,rounding_size=0.08"
    panel.add_patch(
        FancyBboxPatch(corner, box.width, box.height, boxstyle=style, facecolor=box.fill, edgecolor=EDGE, linewidth=0.9)
    )
    panel.text(box.x, box.y, box.text, ha="center", va="center", fontsize=8.5)


def _arrow(panel: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    panel.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": EDGE, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    )
