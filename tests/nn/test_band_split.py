"""Bands of a resolution: where they lie, and that features and masks meet the right bins and frames."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.dsp.stft import istft, stft
from polyres.nn.attention import ATTENTION
from polyres.nn.band_split import (
    BAND_MIXING,
    TIME_MIXING,
    BandAttention,
    BandBlock,
    BandBranch,
    BandLinear,
    ConvMixing,
    LineAttention,
    Run,
    band_edges_hz,
    band_runs,
    compressed,
)
from polyres.nn.body import BAND_TABLE, BodyConfig
from polyres.separation.model import SeparatorConfig

tables = st.lists(st.tuples(st.integers(1, 9), st.floats(5, 5000)), min_size=1, max_size=5)


def branch(n_fft: int, **values: object) -> BandBranch:
    given_values = {"n_fft": [n_fft], "hop_ratio": 2, "head": "mask", "wave_branch": False, "channels": 8}
    body = {"kind": "band_split", "frame_hop": 512, "mask_channels": 4}
    config = SeparatorConfig.from_dict({**given_values, "transformer": {"kind": "none"}, "body": body, **values})
    torch.manual_seed(0)
    built = config.plan().branch(0)
    assert isinstance(built, BandBranch)
    return built.requires_grad_(False)


def test_bands_by_hand() -> None:
    edges = band_edges_hz(BAND_TABLE, 44100)
    assert len(edges) == 35
    assert (edges[1], edges[8], edges[-1]) == (86.1328125, 689.0625, 19293.75)
    runs = [Run(8, 1, 4), Run(8, 1, 8), Run(6, 1, 16), Run(6, 1, 32), Run(4, 1, 64), Run(3, 1, 128)]
    assert band_runs(edges, 2048, 44100) == runs
    # one bin each would be too few: pairs share a layer, and are then as wide as the next ones
    assert band_runs(edges, 512, 44100)[:2] == [Run(4, 2, 2), Run(8, 1, 2)]
    assert len(band_edges_hz(BAND_TABLE, 16000)) == 28


@given(table=tables, n_fft=st.sampled_from([8, 64, 512, 1000, 4096]), rate=st.sampled_from([8000, 44100, 48000]))
def test_runs_hold_every_band_and_bin_once(table: list[tuple[int, float]], n_fft: int, rate: int) -> None:
    edges = band_edges_hz(tuple(table), rate)
    runs = band_runs(edges, n_fft, rate)
    assert sum(run.units * run.bands for run in runs) == len(edges)
    assert sum(run.units * run.bins for run in runs) == n_fft // 2
    assert all(run.bins >= 2 for run in runs)


@given(n_fft=st.sampled_from([1024, 2048, 4096, 8192, 16384]))
def test_bands_mean_the_same_range_at_every_resolution(n_fft: int) -> None:
    edges, start = band_edges_hz(BAND_TABLE, 44100), 0
    starts = []
    for run in band_runs(edges, n_fft, 44100):
        assert run.bands == 1
        starts += [start + run.bins * unit for unit in range(run.units)]
        start += run.units * run.bins
    assert [at * 44100 / n_fft for at in starts] == edges


def test_band_linear_is_a_linear_layer_per_band() -> None:
    layer, x = BandLinear(3, 5, 2), torch.randn(3, 7, 5)
    wanted = [F.linear(x[k], layer.weight[k].T, layer.bias[k, 0]) for k in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(wanted))


def test_compression_keeps_phase_and_shrinks_magnitude() -> None:
    spec = torch.randn(2, 2, 6, 4, dtype=torch.complex64)
    spec = spec / torch.view_as_real(spec).std(dim=(1, 2, 3, 4))[:, None, None, None]
    spec = spec - torch.view_as_real(spec).mean(dim=(1, 2, 3, 4))[:, None, None, None] * (1 + 1j)
    values = compressed(spec).value.unflatten(1, (2, 3))
    torch.testing.assert_close(values[:, :, 2], spec.abs() ** 0.3, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(torch.atan2(values[:, :, 1], values[:, :, 0]), spec.angle(), atol=1e-4, rtol=1e-3)
    assert bool(compressed(torch.zeros_like(spec)).value.isfinite().all())


@pytest.mark.parametrize("n_fft", [512, 1024, 4096])
def test_features_are_where_the_sound_is(n_fft: int) -> None:
    """Frames of half, of the whole and of four times the common one: all answer around a click, and nowhere else."""
    model, at, silence = branch(n_fft), 10_000, torch.zeros(1, 2, 20_480)
    click = silence.clone()
    click[..., at] = 1
    h = model.encode(click)[0]
    assert h.shape == (1, 8, 35, 40)
    heard = (h - h[..., :1]).abs().amax(dim=(0, 1, 2)) > 1e-4
    times = 512 * (heard.nonzero().flatten() + 0.5)
    reach = n_fft / 2 + max(n_fft // 2, 512) / 2
    assert bool(heard[at // 512])
    assert float((times - at).abs().max()) <= reach
    assert float(times.mean() - at) == pytest.approx(0, abs=max(n_fft // 4, 512))


@pytest.mark.parametrize("n_fft", [512, 1024, 4096])
@pytest.mark.parametrize(("band", "low_hz", "high_hz"), [(0, 0.0, 86.1328125), (33, 16537.5, 19293.75)])
def test_a_mask_rules_its_band_and_source(n_fft: int, band: int, low_hz: float, high_hz: float) -> None:
    """Against the same mask laid over the spectrogram by hand."""
    model, mix = branch(n_fft), 0.1 * torch.randn(2, 2, 5001)
    h, state = model.encode(mix)
    for layer in model.masks:
        layer.weight.zero_()
    unit = band
    for run, layer in zip(model.runs, model.masks, strict=True):
        if unit < run.units * run.bands:
            rows = layer.bias.view(run.units, 4, model.channels, model.fold, run.bins, 2)
            step = run.bins // run.bands
            rows[unit // run.bands, 2, 1, :, unit % run.bands * step : (unit % run.bands + 1) * step, 1] = 0.5
            break
        unit -= run.units * run.bands
    spec = stft(mix, n_fft, n_fft // 2)
    mask = torch.full((4, 2, n_fft // 2, 1), 0.25, dtype=torch.complex64)
    mask[2, 1, round(low_hz * n_fft / 44100) : round(high_hz * n_fft / 44100)] += 0.5j
    wanted = istft(mask * spec[:, None], n_fft // 2, 5001)
    torch.testing.assert_close(model.decode(h, state, 5001), wanted, atol=1e-6, rtol=1e-5)


def test_folded_frames_have_masks_of_their_own() -> None:
    model, mix = branch(512), 0.1 * torch.randn(1, 2, 4096)
    h, state = model.encode(mix)
    for run, layer in zip(model.runs, model.masks, strict=True):
        layer.weight.zero_()
        layer.bias.view(run.units, 4, 2, 2, run.bins, 2)[:, :, :, 1, :, 0] = -0.25  # silence in every second frame
    mask = torch.tensor([0.25, 0.0]).repeat(8)
    spec = stft(mix, 512, 256)
    wanted = istft(mask * spec[:, None].expand(-1, 4, -1, -1, -1), 256, 4096)
    torch.testing.assert_close(model.decode(h, state, 4096), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_fft", [512, 4096])
def test_masks_follow_the_features_in_time_and_band(n_fft: int) -> None:
    """A feature of one band and frame changes the output in that band, near that frame."""
    model, mix = branch(n_fft), 0.1 * torch.randn(1, 2, 20_000)
    h, state = model.encode(mix)
    moved = h.clone()
    moved[:, :, 30, 20] += torch.randn(8)
    change = model.decode(moved, state, 20_000) - model.decode(h, state, 20_000)
    bins = stft(change[0, 0, 0], 4096, 1024).abs().square().sum(dim=1)
    share = bins[round(11025 * 4096 / 44100) : round(12403.125 * 4096 / 44100)].sum() / bins.sum()
    assert band_edges_hz(BAND_TABLE, 44100)[30:32] == [11025.0, 12403.125]
    assert float(share) > 0.9
    energy = change[0, 0, 0].square()
    middle = float((energy * torch.arange(20_000)).sum() / energy.sum())
    assert middle == pytest.approx(512 * 20.5, abs=max(n_fft // 2, 512))


WIDTH, BANDS, FRAMES = 8, 5, 7


OVER_TIME = [*TIME_MIXING.names(), *ATTENTION.names()]


OVER_BANDS = [*BAND_MIXING.names(), *ATTENTION.names()]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reach(part: nn.Module) -> Tensor:
    """Which bands and frames change with one cell in the middle, `[K, N]`; the other item of the batch must not."""
    x = torch.randn(2, BANDS, FRAMES, WIDTH)
    moved = x.clone()
    moved[0, 2, 3] += 1
    with torch.no_grad():
        change = (part(moved) - part(x)).abs().amax(dim=-1)
    assert not (change[1] > 1e-6).any()
    return change[0] > 1e-6


@pytest.mark.parametrize("kind", OVER_TIME)
def test_time_mixing_stays_in_its_band(kind: str) -> None:
    part = TIME_MIXING.build(kind, WIDTH, 0) if kind in TIME_MIXING else LineAttention(kind, WIDTH)
    wanted = torch.zeros(BANDS, FRAMES, dtype=torch.bool)
    wanted[2, slice(2, 5) if kind == "conv" else slice(None)] = True
    assert torch.equal(reach(part), wanted)


@pytest.mark.parametrize("kind", OVER_BANDS)
def test_band_mixing_stays_in_its_frame(kind: str) -> None:
    part = BAND_MIXING.build(kind, BANDS) if kind in BAND_MIXING else BandAttention(kind, WIDTH)
    wanted = torch.zeros(BANDS, FRAMES, dtype=torch.bool)
    wanted[:, 3] = True
    assert torch.equal(reach(part), wanted)


@pytest.mark.parametrize("place", [0, 2, 7])
def test_convolution_is_a_dilated_one(place: int) -> None:
    part, x, apart = ConvMixing(WIDTH, place), torch.randn(2, BANDS, FRAMES, WIDTH), 2 ** (place % 6)
    kernel = part.conv.weight.unflatten(1, (3, WIDTH)).permute(0, 2, 1)
    rows = x.flatten(0, 1).transpose(1, 2)
    gated = F.glu(F.conv1d(rows, kernel, part.conv.bias, padding=apart, dilation=apart), dim=1)
    wanted = F.linear(gated.transpose(1, 2), part.out.weight, part.out.bias).view_as(x)
    torch.testing.assert_close(part(x), wanted)


def test_block_adds_its_parts_one_after_another() -> None:
    block, x = BandBlock(BodyConfig(time_mixing="conv"), WIDTH, BANDS, 0), torch.randn(2, BANDS, FRAMES, WIDTH)
    assert block.feed_forward is not None
    first = x + block.over_time(block.norm_time(x))
    second = first + block.over_bands(block.norm_band(first))
    torch.testing.assert_close(block(x), second + block.feed_forward(second))
    assert BandBlock(BodyConfig(feed_forward=0), WIDTH, BANDS, 0).feed_forward is None
