"""The contract of every fusion, and the weighted ones in detail."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.nn.fusion import networks as fusion_nets
from polyres.nn.fusion.base import (
    BOTTLENECK_FUSION,
    OUTPUT_FUSION,
    Fusion,
    FusionConfig,
    FusionShape,
    SoftmaxTable,
    check_settings,
    share_among_active,
)

SOURCES = ("drums", "bass", "other", "vocals")
SIZES = {1: (4096,), 2: (1024, 4096), 3: (1024, 2048, 4096), 5: tuple(1024 * 2**i for i in range(5))}
SIZES[7] = tuple(512 * 2**i for i in range(7))
SMALL: dict[str, object] = {"widths": [6, 8], "strides": [4, 4], "band_taps": 65, "gate_hop_samples": 16, "taps": 9}
BOTH = [(OUTPUT_FUSION, kind) for kind in OUTPUT_FUSION.names()]
BOTH += [(BOTTLENECK_FUSION, kind) for kind in BOTTLENECK_FUSION.names()]
FROM_MEAN = [entry for entry in BOTH if entry[1] not in ("sum", "unet_notes")]
WEIGHTED = [entry for entry in BOTH if entry[1] in ("weights", "source_weights", "band_weights")]
FAVOURING = [*WEIGHTED, (OUTPUT_FUSION, "conv"), (BOTTLENECK_FUSION, "conv"), (OUTPUT_FUSION, "gated")]
NO_PARAMETERS = ("mean", "sum")

Entry = tuple[Catalogue[Fusion], str]
counts = pytest.mark.parametrize("count", SIZES)


def ids(entry: object) -> str:
    return "-".join([entry[0].kind.split()[0], entry[1]]) if isinstance(entry, tuple) else str(entry)


def entries(chosen: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", chosen, ids=ids)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(entry: Entry, count: int = 3, average: bool = False, **values: object) -> Fusion:
    catalogue, kind = entry
    config = FusionConfig.from_dict({**SMALL, "kind": kind, **values})
    check_settings(catalogue, config)
    width = 6 if catalogue is BOTTLENECK_FUSION else 2
    return catalogue.build(kind, config, FusionShape(SIZES[count], SOURCES, width, 44100, average, bins=4))


def features(entry: Entry, count: int = 3, batch: int = 2, length: int = 101) -> Tensor:
    """Waves `[B, R, S, C, T]`, or features `[B, R, D, F, N]`."""
    return (
        torch.randn(batch, count, 6, 4, 5) if entry[0] is BOTTLENECK_FUSION else torch.randn(batch, count, 4, 2, length)
    )


def stirred(fusion: Fusion) -> Fusion:
    """Move every parameter away from its start, which hides what zero weights multiply."""
    with torch.no_grad():
        for value in fusion.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return fusion


def fuse(fusion: Fusion, x: Tensor, active: list[int] | None = None) -> Tensor:
    switch = torch.ones(x.shape[1])
    if active is not None:
        switch = torch.zeros(x.shape[1])
        switch[active] = 1
    out: Tensor = fusion(x, switch)
    return out


def test_names() -> None:
    assert BOTTLENECK_FUSION.names() == ["mean", "weights", "band_weights", "conv"]
    assert OUTPUT_FUSION.names() == [
        *("mean", "sum", "weights", "source_weights", "conv"),
        *("unet", "unet_notes", "progressive", "band_weights", "gated"),
    ]
    assert all(catalogue.summary(kind) for catalogue, kind in BOTH)
    assert fusion_nets.GatedFusion is OUTPUT_FUSION.get("gated")
    assert fusion_nets.BottleneckConv is BOTTLENECK_FUSION.get("conv")


# -- every fusion -----------------------------------------------------------------------------------------------------


@entries(BOTH)
@counts
def test_contract(entry: Entry, count: int) -> None:
    """Shape, finite values, batch items independent, a gradient to every branch and parameter."""
    fusion, x = stirred(build(entry, count)), features(entry, count).requires_grad_()
    out = fuse(fusion, x)
    assert out.shape == (x.shape[0], *x.shape[2:])
    assert bool(out.isfinite().all())
    torch.testing.assert_close(fuse(fusion, x[1:]), out[1:], atol=1e-5, rtol=1e-5)
    (out * torch.randn(out.shape)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.flatten(2).any(dim=2).all())
    dead = [name for name, value in fusion.named_parameters() if value.grad is None or not value.grad.any()]
    assert not dead


@entries([entry for entry in BOTH if entry[0] is OUTPUT_FUSION])
@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 64, 1001])
def test_any_length_is_kept(entry: Entry, length: int) -> None:
    fusion, x = stirred(build(entry)), features(entry, length=length)
    out = fuse(fusion, x)
    assert out.shape == (2, 4, 2, length)
    assert bool(out.isfinite().all())


@entries(FROM_MEAN)
@counts
def test_starts_as_the_mean(entry: Entry, count: int) -> None:
    x = features(entry, count)
    torch.testing.assert_close(fuse(build(entry, count), x), x.mean(dim=1), atol=2e-6, rtol=1e-5)


@entries(BOTH)
@counts
def test_weights_are_shares_and_their_kind_is_stated(entry: Entry, count: int) -> None:
    fusion = stirred(build(entry, count))
    weights = fusion.weights()
    if entry[1] in ("sum", "unet", "unet_notes", "progressive", "gated"):
        assert weights is None
        assert fusion.weight_kind == "none"
        return
    assert weights is not None
    assert weights.shape == (4, count)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    assert bool((weights > 0).all())
    assert fusion.weight_kind == ("implicit" if entry[1] == "conv" else "explicit")


@entries(FAVOURING)
def test_favoured_resolution_starts_with_its_softmax_share(entry: Entry) -> None:
    fusion, x = build(entry, 5, favour_n_fft=4096, favour_logit=1.5), features(entry, 5)
    shares = torch.tensor([0.0, 0, 1.5, 0, 0]).softmax(dim=0)
    torch.testing.assert_close(fuse(fusion, x), torch.einsum("br...,r->b...", x, shares), atol=1e-5, rtol=1e-5)
    weights = fusion.weights()
    if fusion.weight_kind == "explicit":
        torch.testing.assert_close(weights, shares.expand(4, 5))
    if fusion.weight_kind == "implicit":
        torch.testing.assert_close(weights, (shares**2 / (shares**2).sum()).expand(4, 5))


@entries(FAVOURING)
def test_unknown_favourite_is_refused(entry: Entry) -> None:
    with pytest.raises(ConfigError, match=r"favour_n_fft 3000 is not among the resolutions \[1024, 2048, 4096\]"):
        build(entry, favour_n_fft=3000)


@entries([*WEIGHTED, (OUTPUT_FUSION, "conv"), (BOTTLENECK_FUSION, "conv"), (OUTPUT_FUSION, "mean")])
def test_frozen_fusions_have_no_parameters_and_keep_their_start(entry: Entry) -> None:
    favour = {} if entry[1] == "mean" else {"favour_n_fft": 2048}
    frozen, learned = build(entry, learned=False, **favour), build(entry, **favour)
    assert not list(frozen.parameters())
    assert not frozen.state_dict()
    x = features(entry)
    torch.testing.assert_close(fuse(frozen, x), fuse(learned, x))
    torch.testing.assert_close(frozen.weights(), learned.weights())


@entries(BOTH)
def test_settings_that_mean_nothing_are_refused(entry: Entry) -> None:
    able: Mapping[str, tuple[object, bool]] = {
        "favour_n_fft": (2048, entry in FAVOURING),
        "allowed": ({"bass": (4096,)}, entry == (OUTPUT_FUSION, "source_weights")),
        "learned": (False, entry[1] not in ("unet", "unet_notes", "progressive", "gated")),
    }
    for name, (value, works) in able.items():
        if works:
            build(entry, **{name: value})
        else:
            text = rf"{entry[0].kind} '{entry[1]}' cannot use {name} .*; leave it out \(kinds that can: "
            with pytest.raises(ConfigError, match=text):
                build(entry, **{name: value})


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown output fusion 'source_weigths'; did you mean 'source_weights'"):
        check_settings(OUTPUT_FUSION, FusionConfig(kind="source_weigths"))


# -- switching branches off -------------------------------------------------------------------------------------------


@entries(BOTH)
def test_absent_branches_leave_no_trace(entry: Entry) -> None:
    """Whatever stands in the place of an absent branch, the output is the same."""
    fusion, x = stirred(build(entry)), features(entry)
    other = x.clone()
    other[:, 1] = 100 * torch.randn_like(other[:, 1])
    torch.testing.assert_close(fuse(fusion, x, [0, 2]), fuse(fusion, other, [0, 2]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(fuse(fusion, x), fuse(fusion, x, [0, 2]), atol=1e-3)


@entries([*WEIGHTED, (OUTPUT_FUSION, "mean"), (BOTTLENECK_FUSION, "mean")])
def test_weighted_fusions_share_the_weight_of_absent_branches(entry: Entry) -> None:
    fusion, x = stirred(build(entry)), features(entry)
    same = x[:, :1].expand_as(x)
    for active in ([0], [0, 1], [1, 2], [0, 1, 2]):
        torch.testing.assert_close(fuse(fusion, same, active), x[:, 0], atol=2e-6, rtol=1e-5)
    if entry[1] in ("weights", "source_weights"):
        weights = fusion.weights()
        assert weights is not None
        kept = weights[:, [0, 2]] / weights[:, [0, 2]].sum(dim=1, keepdim=True)
        subscripts = "brdfn,r->bdfn" if entry[0] is BOTTLENECK_FUSION else "brsct,sr->bsct"
        row = kept[0] if entry[0] is BOTTLENECK_FUSION else kept
        torch.testing.assert_close(fuse(fusion, x, [0, 2]), torch.einsum(subscripts, x[:, [0, 2]], row))


@entries([(OUTPUT_FUSION, "gated")])
def test_moving_weights_are_shared_too(entry: Entry) -> None:
    fusion, x = stirred(build(entry)), features(entry)
    same = x[:, :1].expand_as(x)
    torch.testing.assert_close(fuse(fusion, same, [1, 2]), x[:, 0], atol=1e-5, rtol=1e-5)


@entries([entry for entry in BOTH if entry[1] in ("sum", "conv", "unet", "unet_notes", "progressive")])
def test_other_fusions_see_zeros(entry: Entry) -> None:
    fusion, x = stirred(build(entry)), features(entry)
    zeroed = x.clone()
    zeroed[:, 1] = 0
    torch.testing.assert_close(fuse(fusion, x, [0, 2]), fuse(fusion, zeroed))


@entries([entry for entry in BOTH if entry[1] in ("sum", "conv", "mean", "gated") or entry in WEIGHTED])
def test_no_branch_is_silence(entry: Entry) -> None:
    fusion = stirred(build(entry))
    assert not fuse(fusion, features(entry), []).any()


def test_rows_without_any_weight_left_are_zero() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
    shared = share_among_active(weights, torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(shared, torch.tensor([[0.0, 0, 0], [0, 0, 1]]))


@given(
    logits=st.lists(st.floats(-30, 30), min_size=2, max_size=6),
    switches=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_shares_keep_their_proportions(logits: list[float], switches: list[bool]) -> None:
    weights = torch.tensor([logits], dtype=torch.float64).softmax(dim=1)
    active = torch.tensor(switches[: len(logits)], dtype=torch.float64)
    shared = share_among_active(weights, active)
    assert not (shared * (1 - active)).any()
    assert float(shared.sum()) == pytest.approx(1 if active.any() else 0)
    torch.testing.assert_close(shared * (weights * active).sum(), weights * active)


# -- parameters -------------------------------------------------------------------------------------------------------


@entries(BOTH)
@counts
def test_number_of_parameters(entry: Entry, count: int) -> None:
    total = sum(value.numel() for value in build(entry, count).parameters())
    free = count if count > 1 else 0
    known = {
        ("output fusion", "weights"): free,
        ("bottleneck fusion", "weights"): free,
        ("bottleneck fusion", "band_weights"): 4 * free,
        ("output fusion", "source_weights"): 4 * free,
        ("output fusion", "band_weights"): 4 * 4 * free,
        ("output fusion", "conv"): 4 * 2 * count * 9,
        ("bottleneck fusion", "conv"): 6 * 6 * count * 9,
    }
    if entry[1] in NO_PARAMETERS or (entry[1] in ("progressive", "gated") and count == 1):
        assert total == 0
    elif (entry[0].kind, entry[1]) in known:
        assert total == known[entry[0].kind, entry[1]]
    else:
        assert total > 0


@pytest.mark.parametrize(("count", "parameters"), [(3, 3096), (5, 5160)])
def test_convolution_at_full_size(count: int, parameters: int) -> None:
    config = FusionConfig(kind="conv")
    fusion = OUTPUT_FUSION.build("conv", config, FusionShape(SIZES[count], SOURCES, 2, 44100))
    assert sum(value.numel() for value in fusion.parameters()) == parameters


def test_allowed_sets_leave_out_what_cannot_matter() -> None:
    allowed = {"drums": (1024, 2048), "bass": (4096,)}
    fusion = build((OUTPUT_FUSION, "source_weights"), allowed=allowed, favour_n_fft=2048)
    assert [value.numel() for value in fusion.parameters()] == [2 + 0 + 3 + 3]
    weights = fusion.weights()
    assert weights is not None
    share = float(torch.tensor([0.0, 1]).softmax(dim=0)[1])
    third = torch.tensor([0.0, 1, 0]).softmax(dim=0).tolist()
    torch.testing.assert_close(weights, torch.tensor([[1 - share, share, 0], [0, 0, 1], third, third]))
    stirred(fusion)
    weights = fusion.weights()
    assert weights is not None
    assert weights[0, 2] == 0
    assert weights[1].tolist() == [0, 0, 1]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))


def test_source_without_its_only_resolution_is_silent() -> None:
    fusion, x = build((OUTPUT_FUSION, "source_weights"), allowed={"bass": (4096,)}), torch.randn(1, 3, 4, 2, 50)
    out = fuse(fusion, x, [0, 1])
    assert not out[:, 1].any()
    torch.testing.assert_close(out[:, 0], x[:, :2, 0].mean(dim=1))


def test_a_table_without_freedom_has_no_parameters() -> None:
    table = SoftmaxTable(torch.randn(2, 3), torch.eye(3, dtype=torch.bool)[:2], learned=True)
    assert not list(table.parameters())
    torch.testing.assert_close(table(), torch.eye(3)[:2])


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        ({"piano": (4096,)}, "allowed names the source 'piano'; the model has drums, bass, other, vocals"),
        ({"bass": ()}, r"allowed\[bass\] is \[\]; choose one or more of \[1024, 2048, 4096\]"),
        ({"bass": (4096, 512)}, r"allowed\[bass\] is \[4096, 512\]; choose one or more of \[1024, 2048, 4096\]"),
    ],
)
def test_impossible_sets_are_refused(allowed: Mapping[str, tuple[int, ...]], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build((OUTPUT_FUSION, "source_weights"), allowed=allowed)


@pytest.mark.parametrize(
    ("key", "value"), [("taps", 0), ("kernel_size", 0), ("gate_hop_samples", 0), ("gate_channels", -1)]
)
def test_impossible_sizes_are_refused(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"FusionConfig: {key} = {value} is not allowed; allowed: greater than 0"):
        FusionConfig.from_dict({key: value})


# -- sums and convolutions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [False, True])
def test_sum_adds_or_averages(average: bool) -> None:
    x = torch.randn(1, 3, 4, 2, 20)
    fusion = build((OUTPUT_FUSION, "sum"), average=average)
    torch.testing.assert_close(fuse(fusion, x), x.sum(dim=1) / (3 if average else 1))
    torch.testing.assert_close(fuse(fusion, x, [0, 2]), x[:, [0, 2]].sum(dim=1) / (3 if average else 1))


def test_convolution_equals_explicit_loops() -> None:
    fusion = stirred(build((OUTPUT_FUSION, "conv"))).requires_grad_(False)
    x = torch.randn(1, 3, 4, 2, 30)
    wanted = torch.zeros(1, 4, 2, 30)
    for source in range(4):
        for channel in range(2):
            for tap in range(9):
                for sample in range(30):
                    if 0 <= (place := sample + tap - 4) < 30:
                        kernel = fusion.get_parameter("kernel")[2 * source + channel, :, tap]
                        wanted[0, source, channel, sample] += x[0, :, source, channel, place] @ kernel
    torch.testing.assert_close(fuse(fusion, x), wanted, atol=1e-5, rtol=1e-5)


def test_convolution_weights_are_the_share_of_kernel_energy() -> None:
    fusion = build((OUTPUT_FUSION, "conv"))
    kernel = fusion.get_parameter("kernel")
    with torch.no_grad():
        kernel.zero_()
        kernel[4:6, 0, 3] = 3.0
        kernel[4:6, 2, 8] = -1.0
        kernel[:4, 1] = 1.0
        kernel[6:, 1] = 1.0
    wanted = torch.tensor([[0, 1, 0], [0, 1, 0], [0.9, 0, 0.1], [0, 1, 0]])
    torch.testing.assert_close(fusion.weights(), wanted)


def test_even_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="taps is 128; an odd number is needed"):
        build((OUTPUT_FUSION, "conv"), taps=128)


def test_bottleneck_band_weights_rule_their_band_alone() -> None:
    fusion, x = build((BOTTLENECK_FUSION, "band_weights")), features((BOTTLENECK_FUSION, "band_weights"))
    assert isinstance(fusion, fusion_nets.BottleneckBandWeights)
    with torch.no_grad():
        fusion.get_parameter("table.logits")[3:6] = torch.tensor([0.0, 40.0, 0.0])  # of the second band
    out = fuse(fusion, x)
    torch.testing.assert_close(out[:, :, 1], x[:, 1, :, 1])
    torch.testing.assert_close(out[:, :, [0, 2, 3]], x.mean(dim=1)[:, :, [0, 2, 3]])
    torch.testing.assert_close(fusion.weights(), torch.tensor([[1, 2, 1]]).expand(4, -1) / 4)


def test_bottleneck_convolution_mixes_features_and_neighbours() -> None:
    fusion = stirred(build((BOTTLENECK_FUSION, "conv")))
    x = torch.zeros(1, 3, 6, 5, 5)
    x[0, 1, 2, 2, 2] = 1
    kernel = fusion.get_parameter("kernel")
    torch.testing.assert_close(fuse(fusion, x)[0, :, 1:4, 1:4], kernel[:, 1, 2].flip(1, 2))
