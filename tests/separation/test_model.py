"""The separator: what its parts do together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.dsp.stft import istft, stft
from polyres.nn.fusion.base import BOTTLENECK_FUSION, OUTPUT_FUSION
from polyres.separation.model import Separator, SeparatorConfig

# At the default starting scale the bottleneck moves the output by 1e-4 only; at this one by a twentieth.
SMALL: dict[str, object] = {
    "rescale": 0.5,
    "n_fft": [512, 1024, 2048],
    "channels": 8,
    "wave_branch": False,
    "transformer": {"kind": "none", "layers": 2, "scale_init": 0.5},
    "bottleneck": {"kind": "mean"},
    "output": {"kind": "mean"},
}
BODIES: dict[str, dict[str, object]] = {
    "unet": {},
    "band_split": {"body": {"kind": "band_split", "blocks": 1, "frame_hop": 256, "time_mixing": "conv"}},
    "tfc_tdf": {"body": {"kind": "tfc_tdf", "blocks": 1, "subbands": 2}, "depth": 3},
}
bodies = pytest.mark.parametrize("body", BODIES)


def config(**values: object) -> SeparatorConfig:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return SeparatorConfig.from_dict(SMALL).with_values(dotted)


def build(seed: int = 0, **values: object) -> Separator:
    return Separator(config(**values), seed).requires_grad_(False)


def mixture(batch: int = 1, length: int = 3001, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(batch, 2, length, generator=torch.Generator().manual_seed(seed))


def close(value: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(value, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


# -- shape of the answer ----------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(length=st.one_of(st.integers(1, 5), st.integers(1, 5000)), wave=st.booleans())
def test_any_length(length: int, wave: bool) -> None:
    model = build(channels=16, wave_branch=wave, transformer__kind="linear")
    out, waves = model(mixture(length=length), return_branches=True)
    assert out.shape == (1, 4, 2, length)
    assert waves.shape == (1, 3, 4, 2, length)
    assert bool(out.isfinite().all())


@settings(max_examples=12)
@given(length=st.one_of(st.integers(1, 5), st.integers(1, 5000)), body=st.sampled_from(["band_split", "tfc_tdf"]))
def test_any_length_and_body(length: int, body: str) -> None:
    model, mix = build(**BODIES[body], head="mask"), mixture(2, length)
    out, waves = model(mix, return_branches=True)
    assert (out.shape, waves.shape) == ((2, 4, 2, length), (2, 3, 4, 2, length))
    torch.testing.assert_close(out, waves.mean(dim=1))
    kept = torch.stack([istft(stft(mix, n, n // 4), n // 4, length) for n in (512, 1024, 2048)], dim=1)
    torch.testing.assert_close(waves, (kept / 4)[:, :, None].expand_as(waves), atol=2e-6, rtol=1e-5)


@bodies
def test_other_sources_and_rate(body: str) -> None:
    model = build(sources=["speech", "rest"], audio_channels=1, sample_rate_hz=16000, **BODIES[body])
    assert model(mixture()[:, :1]).shape == (1, 2, 1, 3001)


def test_other_sources_and_channels() -> None:
    model = build(sources=["speech", "rest"], audio_channels=1, wave_branch=True)
    assert model(mixture()[:, :1]).shape == (1, 2, 1, 3001)
    assert (model.sources, model.audio_channels) == (("speech", "rest"), 1)
    assert (model.sample_rate_hz, model.segment_samples) == (44100, 343980)


@pytest.mark.parametrize("head", ["mapping", "mask"])
def test_silence_in_gives_finite_values(head: str) -> None:
    out = build(head=head, wave_branch=True, transformer__kind="softmax")(torch.zeros(1, 2, 3001))
    assert bool(out.isfinite().all())


def test_short_input_is_padded_to_the_segment_in_evaluation_only() -> None:
    model, mix = build(pad_to_segment=True, segment_samples=4000), mixture()
    plain = build(segment_samples=4000)
    longer = torch.nn.functional.pad(mix, (0, 999))
    torch.testing.assert_close(model.eval()(mix), plain(longer)[..., :3001])
    torch.testing.assert_close(model.train()(mix), plain(mix))
    out, waves = model.eval()(mix, return_branches=True)
    assert out.shape[-1] == waves.shape[-1] == 3001


# -- starting weights -------------------------------------------------------------------------------------------------


def test_seed_decides_the_weights_and_the_global_state_stays() -> None:
    before = torch.get_rng_state()
    first, again, other = (build(seed, transformer__kind="softmax", wave_branch=True) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    moved = build(0, transformer__kind="softmax", wave_branch=True)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value, moved.state_dict()[name])
    assert not torch.equal(
        first.state_dict()["branches.0.encoder.0.conv.weight"], other.branches[0].encoder[0].conv.weight
    )


@pytest.mark.parametrize("output", [kind for kind in OUTPUT_FUSION.names() if kind != "unet_notes"])
@pytest.mark.parametrize("wave", [False, True])
def test_masks_start_as_equal_shares_whatever_the_fusion(output: str, wave: bool) -> None:
    """Up to the dropped Nyquist bin, which each resolution loses in its own way; an offset is shared too."""
    mix = mixture() + 0.2
    model = build(head="mask", output__kind=output, wave_branch=wave, transformer__kind="linear")
    kept = torch.stack([istft(stft(mix, n, n // 4), n // 4, 3001) for n in (512, 1024, 2048)]).mean(dim=0)
    torch.testing.assert_close(model(mix), (kept / 4)[:, None].expand(1, 4, 2, 3001), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(kept, mix, atol=0.02, rtol=0)


# -- one resolution ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["softmax", "none"])
@pytest.mark.parametrize("wave", [False, True])
def test_one_resolution_is_encoder_transformer_decoder(kind: str, wave: bool) -> None:
    model, mix = build(n_fft=[1024], transformer__kind=kind, wave_branch=wave), mixture()
    h, state = model.branches[0].encode(mix)
    w, wave_state = model.wave.encode(mix) if model.wave is not None else (None, None)
    if model.transformer is not None:
        x, w = model.transformer(h, w)
        h = h + (x - h)
    wanted = model.branches[0].decode(h, state, 3001)
    if model.wave is not None:
        wanted = wanted + model.wave.decode(w, wave_state)
    close(model(mix), wanted)


@pytest.mark.parametrize("output", ["mean", "sum", "weights", "source_weights", "band_weights", "gated"])
@pytest.mark.parametrize("bottleneck", ["mean", "weights"])
def test_one_resolution_has_no_fusion_to_learn(output: str, bottleneck: str) -> None:
    model = build(n_fft=[1024], output__kind=output, bottleneck__kind=bottleneck)
    assert not [name for name in model.state_dict() if not name.startswith("branches.0.")]
    out, waves = model(mixture(), return_branches=True)
    close(out, waves[:, 0])


# -- exchange between resolutions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bottleneck", BOTTLENECK_FUSION.names())
@pytest.mark.parametrize("kind", ["none", "linear"])
def test_a_branch_is_heard_by_all_others(bottleneck: str, kind: str) -> None:
    model, mix = build(bottleneck__kind=bottleneck, transformer__kind=kind), mixture()
    before = model(mix, return_branches=True)[1]
    for index in range(3):
        last = model.branches[index].encoder[-1]
        handle = last.register_forward_hook(lambda module, given, out: out + torch.randn_like(out))
        after = model(mix, return_branches=True)[1]
        handle.remove()
        change = (after - before).flatten(2).norm(dim=2) / before.flatten(2).norm(dim=2)
        assert bool((change > 1e-2).all())


def test_fused_features_replace_what_the_reference_grid_holds() -> None:
    """Each branch gets h + to_grid(x - to_ref(h)), with x the mean of all on the grid of the reference."""
    model, mix = build(), mixture()
    encoded = [branch.encode(mix) for branch in model.branches]

    def to(h: Tensor, like: Tensor) -> Tensor:
        if h.shape == like.shape:
            return h
        return torch.nn.functional.interpolate(h, like.shape[-2:], mode="bilinear", antialias=True)

    reference = encoded[2][0]
    x = sum(to(h, reference) for h, _ in encoded) / 3
    waves = [
        branch.decode(h + to(x - to(h, reference), h), state, 3001)
        for branch, (h, state) in zip(model.branches, encoded, strict=True)
    ]
    close(model(mix, return_branches=True)[1], torch.stack(waves, dim=1))


def test_output_is_the_fusion_of_the_branches_waves() -> None:
    model, mix = build(output__kind="source_weights", output__favour_n_fft=1024), mixture()
    out, waves = model(mix, return_branches=True)
    shares = torch.tensor([0.0, 1, 0]).softmax(dim=0)
    close(out, torch.einsum("brsct,r->bsct", waves, shares))
    weights = model.fusion_weights()
    assert set(weights) == {"bottleneck", "output"}
    torch.testing.assert_close(weights["output"], shares.expand(4, 3))
    assert set(build(output__kind="gated").fusion_weights()) == {"bottleneck"}


# -- switching resolutions off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [0, 1])
@pytest.mark.parametrize(
    ("fusion", "wave", "body"),
    [(f, w, "unet") for f in ("mean", "weights") for w in (False, True)]
    + [("weights", False, body) for body in ("band_split", "tfc_tdf")],
)
def test_knock_out_equals_a_model_built_without_the_branch(absent: int, fusion: str, wave: bool, body: str) -> None:
    values = {"bottleneck__kind": fusion, "output__kind": fusion, "wave_branch": wave, "transformer__kind": "linear"}
    values |= BODIES[body]
    model, mix = build(**values), mixture()
    with torch.no_grad():
        for stage in (model.bottleneck, model.output):
            for value in stage.parameters():
                value.copy_(torch.tensor([0.5, -1.0, 1.5]))
    rest = [index for index in range(3) if index != absent]
    smaller = build(n_fft=[model.config.n_fft[index] for index in rest], **values)
    state = {}
    for name, value in model.state_dict().items():
        head, _, tail = name.partition(".")
        if head == "branches":
            index, _, tail = tail.partition(".")
            if int(index) != absent:
                state[f"branches.{rest.index(int(index))}.{tail}"] = value
        else:
            state[name] = value[rest] if "logits" in name else value
    smaller.load_state_dict(state)
    close(model(mix, active=rest), smaller(mix))


def test_a_lonely_branch_keeps_its_own_features() -> None:
    model, mix = build(), mixture()
    for index, branch in enumerate(model.branches):
        h, state = branch.encode(mix)
        wanted = branch.decode(h, state, 3001)
        close(model(mix, active=[index]), wanted)


def test_order_and_repetition_of_active_do_not_matter() -> None:
    model, mix = build(), mixture()
    torch.testing.assert_close(model(mix, active=[2, 0, 2]), model(mix, active=(0, 2)), atol=0, rtol=0)


def test_bands_get_masks_only_where_a_source_may_use_them() -> None:
    allowed = {"drums": [512, 1024], "bass": [1024], "other": [1024], "vocals": [1024]}
    choice = {"output__kind": "source_weights", "output__allowed": allowed, "head": "mapping"}
    model, mix = build(**BODIES["band_split"], **choice), mixture()
    waves = model(mix, return_branches=True)[1]
    assert waves.flatten(3).any(dim=3)[0].int().tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert not [name for name, _ in model.branches[2].named_parameters() if "mask" in name or "merge" in name]
    assert not model(mix, active=[0, 2])[:, 1:].any()
    # the last one is still listened to
    assert float((model(mix) - model(mix, active=[0, 1])).norm() / model(mix).norm()) > 1e-3


@pytest.mark.parametrize("output", OUTPUT_FUSION.names())
@pytest.mark.parametrize("kind", ["none", "softmax"])
def test_empty_coalition_is_silence(output: str, kind: str) -> None:
    model = build(output__kind=output, transformer__kind=kind)
    with torch.no_grad():
        for value in model.output.parameters():
            value.add_(0.1)  # trained biases, which start at zero in some fusions
    out, waves = model(mixture(), active=[], return_branches=True)
    assert not out.any()
    assert not waves.any()


def test_empty_coalition_leaves_the_wave_branch() -> None:
    model, mix = build(wave_branch=True), mixture()
    assert model.wave is not None
    torch.testing.assert_close(model(mix, active=[]), model.wave.decode(*model.wave.encode(mix)))


# -- state ------------------------------------------------------------------------------------------------------------


def test_loading_is_strict() -> None:
    model = build()
    state = model.state_dict()
    state.pop("branches.1.encoder.0.conv.weight")
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict({**model.state_dict(), "extra": torch.zeros(1)})


def test_config_survives_yaml_with_a_delta(tmp_path: Path) -> None:
    base = config(output__kind="source_weights", output__allowed={"bass": [2048]}, hop_length=256)
    (tmp_path / "base.yaml").write_text(base.to_yaml(), encoding="utf-8")
    (tmp_path / "delta.yaml").write_text("base: base.yaml\noutput: {favour_n_fft: 1024}\n", encoding="utf-8")
    assert SeparatorConfig.from_yaml(tmp_path / "base.yaml") == base
    delta = SeparatorConfig.from_yaml(tmp_path / "delta.yaml", ["head=mask"])
    assert delta == base.with_values({"output.favour_n_fft": 1024, "head": "mask"})
    assert Separator(delta).output.weights() is not None


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3001), (1, 1, 3001), (1, 3, 3001), (1, 2, 0), (1, 1, 2, 3001)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    text = (
        rf"the mixture has shape \[{', '.join(map(str, shape))}\]; \[batch, 2 channels, 1 or more samples\] is needed"
    )
    with pytest.raises(InputError, match=text):
        build()(torch.zeros(shape))


@pytest.mark.parametrize("index", [3, -1])
def test_unknown_resolutions_are_refused(index: int) -> None:
    with pytest.raises(InputError, match=f"active names resolution {index}; this model has 0 to 2"):
        build()(mixture(), active=[0, index])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"n_fft": []}, "n_fft = .*: one or more distinct values"),
        ({"n_fft": [1024, 1024]}, "n_fft = .*: one or more distinct values"),
        ({"sources": ["a", "a"]}, "sources = .*: one or more distinct values"),
        ({"sources": []}, "sources = .*: one or more distinct values"),
        ({"n_fft": [1000]}, "n_fft 1000 has 500 bins; with 4 layers of stride 4 n_fft must be a multiple of 512"),
        ({"n_fft": [-512]}, "n_fft -512 with hop_length -128 is not possible"),
        ({"n_fft": [1024], "hop_length": 600}, "n_fft 1024 with hop_length 600 is not possible"),
        ({"hop_length": 0}, "hop_length = 0 is not allowed; allowed: greater than 0"),
        ({"hop_ratio": 0}, "hop_ratio = 0 is not allowed; allowed: greater than or equal to 2"),
        ({"hop_ratio": 3}, "n_fft 512 with hop_length 170 is not possible"),
        ({"channels": 0}, "channels = 0 is not allowed; allowed: greater than 0"),
        ({"kernel_size": 2}, "kernel_size 2 must be stride 4 or more, by an even number of samples"),
        ({"kernel_size": 7}, "kernel_size 7 must be stride 4 or more, by an even number of samples"),
        ({"norm_starts": 1, "norm_groups": 3}, "norm_groups 3 does not divide the 8 channels of a layer with norms"),
        ({"dconv_mode": 4}, "dconv_mode = 4 is not allowed"),
        ({"head": "masks"}, "head = 'masks' is not allowed; allowed: 'mapping' or 'mask'"),
        ({"transformer": {"kind": "softmax", "heads": 7}}, "token width 64 must be a multiple of 4 and of .*heads 7"),
        (
            {"transformer": {"kind": "linear", "bottom_channels": 6, "heads": 2}},
            "token width 6 must be a multiple of 4",
        ),
        ({"output": {"kind": "unet", "learned": False}}, "output fusion 'unet' cannot use learned False"),
        ({"bottleneck": {"kind": "mean", "favour_n_fft": 512}}, "bottleneck fusion 'mean' cannot use favour_n_fft 512"),
        (
            {"body": {"kind": "tfc_tdf", "subbands": 3}},
            "n_fft 512 has 256 bins; with 3 subbands and 4 levels n_fft must be a multiple of 48",
        ),
        ({"body": {"kind": "band_split", "frame_hop": 384}}, "frame_hop 384 and the hop 256 of n_fft 1024 do not fit"),
        ({"body": {"kind": "tfc_tdf"}, "wave_branch": True}, "body 'tfc_tdf' has no wave branch; set wave_branch to f"),
        (
            {"body": {"kind": "band_split", "band_mixing": "linear"}, "channels": 6},
            "channels 6 must be a multiple of 4 for band mixing 'linear'",
        ),
        ({"chanels": 3}, "unknown key 'chanels'; did you mean 'channels'"),
    ],
)
def test_impossible_configs_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SeparatorConfig.from_dict({**SMALL, **values})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"output": {"kind": "source_weight"}}, "unknown output fusion 'source_weight'; did you mean 'source_weights'"),
        ({"bottleneck": {"kind": "weigths"}}, "unknown bottleneck fusion 'weigths'; did you mean 'weights'"),
        ({"body": {"kind": "bandsplit"}}, "unknown body 'bandsplit'; did you mean 'band_split'.* known: unet, band_s"),
        ({"body": {"kind": "band_split", "time_mixing": "gruu"}}, "unknown time mixing 'gruu'; did you mean 'gru'"),
        ({"transformer": {"kind": "non"}}, "unknown transformer 'non'; did you mean 'none'.* known: softmax, .*, none"),
    ],
)
def test_unknown_names_get_a_suggestion(values: dict[str, object], text: str) -> None:
    with pytest.raises(UnknownNameError, match=text):
        SeparatorConfig.from_dict({**SMALL, **values})


@pytest.mark.parametrize("norm_starts", [0, 2, 4])
def test_norms_may_start_at_any_layer(norm_starts: int) -> None:
    model = build(norm_starts=norm_starts, wave_branch=True)
    assert bool(model(mixture()).isfinite().all())
