from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from polyres.core.errors import WeightsError
from polyres.separation.model import Separator
from polyres.separation.official import (
    DEFAULTS,
    FIXED,
    config_of,
    convert,
    load_official,
    named_arguments,
    official_name,
)
from polyres.weights.packages import OfficialPackage
from tests.separation.oracle import (
    FOUR,
    RELEASED,
    SMALL,
    demucs_model,
    halved,
    noise,
    package_of,
    relative_error,
    write_safetensors,
    write_th,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def package() -> OfficialPackage:
    return package_of(demucs_model(SMALL))


def with_arguments(package: OfficialPackage, **changes: Any) -> OfficialPackage:
    return replace(package, kwargs={**package.kwargs, **changes})


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["th", "safetensors"])
def test_files_of_both_layouts_separate_as_the_official_model_does(layout: str, tmp_path: Path) -> None:
    official = halved(demucs_model({**SMALL, "dconv_mode": 3, "bottom_channels": 64}, seed=2))
    path = tmp_path / f"x.{layout}"
    (write_th if layout == "th" else write_safetensors)(official, path)
    ours = load_official(path)
    assert not ours.training
    assert {value.dtype for value in ours.state_dict().values()} == {torch.float32}
    mix = noise(1, 2, 20_000)
    with torch.no_grad():
        assert relative_error(ours(mix), official(mix)) <= 1e-5


def test_every_official_tensor_has_exactly_one_of_ours() -> None:
    official = demucs_model(RELEASED)
    ours = convert(package_of(official)).state_dict()
    names = [official_name(name) for name in ours]
    assert sorted(names) == sorted(official.state_dict())
    assert len(set(names)) == 533
    for name, value in ours.items():
        assert torch.equal(official.state_dict()[official_name(name)], value), name


# -- arguments --------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_official_constructor() -> None:
    import inspect

    from demucs.htdemucs import HTDemucs

    wanted = inspect.signature(HTDemucs).parameters
    assert list(DEFAULTS) == list(wanted)[: len(DEFAULTS)]
    assert len(DEFAULTS) == len(wanted)
    for name, value in DEFAULTS.items():
        default = wanted[name].default
        assert value == (None if name == "sources" else default), name


def test_the_released_config() -> None:
    config = config_of({**DEFAULTS, **RELEASED})
    assert (config.segment_samples, config.pad_to_segment) == (343_980, True)
    assert (config.n_fft, config.hop_of(4096), config.inverse, config.head) == ((4096,), 1024, "demucs", "mapping")
    assert (config.transformer.kind, config.transformer.bottom_channels) == ("softmax", 512)
    assert (config.dconv_mode, config.sources, config.channels) == (3, tuple(FOUR), 48)
    assert Separator(config.with_values({"channels": 8, "transformer.bottom_channels": 16})).fusion_weights().keys()


@pytest.mark.parametrize(
    ("segment", "samples"), [(Fraction(39, 5), 343_980), (10, 441_000), (7.8, int(7.8 * 44100)), (44, 1_940_400)]
)
def test_segments_are_cut_to_whole_samples_as_officially(segment: Fraction | float, samples: int) -> None:
    assert config_of({**DEFAULTS, "sources": FOUR, "segment": segment}).segment_samples == samples


def test_positional_arguments_and_unused_names(package: OfficialPackage) -> None:
    kwargs = {name: value for name, value in package.kwargs.items() if name != "sources"}
    moved = replace(package, args=(FOUR, 2), kwargs={**kwargs, "long_gone": 3})
    arguments = named_arguments(moved)
    assert arguments["sources"] == FOUR
    assert "long_gone" not in arguments
    assert convert(moved).config == convert(package).config


def test_arguments_without_effect_are_accepted(package: OfficialPackage) -> None:
    idle = {"multi_freqs": [], "t_sparse_attn_window": 400, "t_mask_type": "jmask", "t_lr": 1e-4, "channels_time": 8}
    assert convert(with_arguments(package, **idle)).config == convert(package).config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cac": False}, r"cac = False \(magnitude spectrograms\) is not supported; only True is"),
        ({"wiener_iters": 1}, r"wiener_iters = 1 \(Wiener filtering\) is not supported; only 0 is"),
        ({"multi_freqs": [0.25]}, r"multi_freqs = \[0\.25\] \(separate layers per frequency band\)"),
        ({"t_emb": "cape"}, r"t_emb = 'cape' \(positions that are not sinusoidal\) is not supported; only 'sin' is"),
        ({"t_sparse_self_attn": True}, r"t_sparse_self_attn = True \(sparse attention\)"),
        ({"t_sparse_cross_attn": True}, r"t_sparse_cross_attn = True \(sparse attention\)"),
        ({"t_cross_first": True}, r"t_cross_first = True \(cross-attention in the first layer\)"),
        ({"t_sin_random_shift": 5}, r"t_sin_random_shift = 5 \(random shifts"),
        ({"channels_time": 12}, r"channels_time = 12 \(another width in time\)"),
        ({"t_layers": 0, "bottom_channels": 64}, "bottom_channels without transformer layers"),
        ({"kernel_size": 6}, "kernel_size 6 with stride 4 is not supported; 8 with 4 is"),
        ({"nfft": 1024}, "nfft 1024 leaves 8 bins for the last layer, where HTDemucs merges its branches"),
        ({"segment": None}, "segment None is not a length"),
        ({"segment": 0}, "segment 0 is not a length"),
        ({"channels": "many"}, "channels = 'many' is not allowed"),
        ({"dconv_mode": 7}, "dconv_mode = 7 is not allowed"),
        ({"nfft": "wide"}, "nfft = 'wide' is not a whole number of 1 or more"),
        ({"depth": 0}, "depth = 0 is not a whole number"),
        ({"t_heads": 5}, "heads"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_expressed_is_refused_with_the_reason(
    package: OfficialPackage, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(WeightsError, match=rf"^oracle: .*{text}") as caught:
        convert(with_arguments(package, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FIXED))
def test_every_fixed_argument_is_checked(name: str) -> None:
    other = {"multi_freqs": [0.5], "t_emb": "scaled"}.get(name, not DEFAULTS[name])
    with pytest.raises(WeightsError, match=rf"{name} = .*is not supported; only"):
        config_of({**DEFAULTS, "sources": FOUR, name: other})


def test_sources_are_needed_and_arguments_are_counted(package: OfficialPackage) -> None:
    with pytest.raises(WeightsError, match="oracle: no sources are named"):
        convert(with_arguments(package, sources=[]))
    with pytest.raises(WeightsError, match=f"oracle: 99 arguments are given; HTDemucs has {len(DEFAULTS)}"):
        convert(replace(package, args=(1,) * 99))


@pytest.mark.parametrize(
    ("klass", "what"),
    [
        ("demucs.hdemucs.HDemucs", "Hybrid Demucs, with recurrent layers and no transformer"),
        ("demucs.demucs.Demucs", "Demucs on the waveform alone"),
        ("numpy.ndarray", "another architecture"),
    ],
)
def test_other_architectures_are_refused_with_the_reason(package: OfficialPackage, klass: str, what: str) -> None:
    with pytest.raises(WeightsError, match=rf"oracle holds {klass} \({what}\); only HTDemucs can be read"):
        convert(replace(package, klass=klass))


def test_a_bag_may_shorten_the_segment_but_not_lengthen_it(package: OfficialPackage) -> None:
    assert convert(package, 0.25).segment_samples == 11_025
    with pytest.raises(WeightsError, match=r"oracle: .*segment_samples"):
        convert(package, 0)
    assert convert(package, 44).segment_samples == convert(package).segment_samples == 22_050


# -- tensors ----------------------------------------------------------------------------------------------------------


def test_tensors_must_fit_both_ways(package: OfficialPackage) -> None:
    state = dict(package.state)
    value = state.pop("crosstransformer.layers.1.cross_attn.in_proj_weight")
    with pytest.raises(WeightsError, match=r"1 tensor missing, first 'crosstransformer\.layers\.1\.cross_attn\.in_pro"):
        convert(replace(package, state=state))
    with pytest.raises(WeightsError, match="1 tensor too many, first 'zebra'; the weights are of another model"):
        convert(replace(package, state={**package.state, "zebra": value}))
    wrong = {**package.state, "encoder.0.conv.bias": torch.zeros(9)}
    with pytest.raises(WeightsError, match=r"another shape, first 'encoder\.0\.conv\.bias': \[9\] instead of \[8\]"):
        convert(replace(package, state=wrong))
    with pytest.raises(WeightsError, match=r"oracle: \d+ tensors missing"):
        convert(with_arguments(package, dconv_mode=3))


def test_tensors_must_be_finite(package: OfficialPackage) -> None:
    bad = package.state["tdecoder.0.conv_tr.bias"].clone()
    bad[0] = math.nan
    with pytest.raises(WeightsError, match="1 tensor not finite, first"):
        convert(replace(package, state={**package.state, "tdecoder.0.conv_tr.bias": bad}))
