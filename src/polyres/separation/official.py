"""Official HTDemucs weights as a `Separator`: arguments become a config, tensors get our names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from polyres.core.errors import ConfigError, WeightsError
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import Separator, SeparatorConfig
from polyres.weights.files import check_fit, fill, one_line
from polyres.weights.packages import OfficialPackage, read_package

SUPPORTED_CLASS = "demucs.htdemucs.HTDemucs"
OTHER_CLASSES = {
    "demucs.hdemucs.HDemucs": "Hybrid Demucs, with recurrent layers and no transformer",
    "demucs.demucs.Demucs": "Demucs on the waveform alone",
}

# Arguments of HTDemucs 4.1 in their order, with their defaults; packages say only what was given.
DEFAULTS: dict[str, Any] = json.loads(
    """
    {"sources": null, "audio_channels": 2, "channels": 48, "channels_time": null, "growth": 2, "nfft": 4096,
     "wiener_iters": 0, "end_iters": 0, "wiener_residual": false, "cac": true, "depth": 4, "rewrite": true,
     "multi_freqs": null, "multi_freqs_depth": 3, "freq_emb": 0.2, "emb_scale": 10, "emb_smooth": true,
     "kernel_size": 8, "time_stride": 2, "stride": 4, "context": 1, "context_enc": 0, "norm_starts": 4,
     "norm_groups": 4, "dconv_mode": 1, "dconv_depth": 2, "dconv_comp": 8, "dconv_init": 1e-3, "bottom_channels": 0,
     "t_layers": 5, "t_emb": "sin", "t_hidden_scale": 4.0, "t_heads": 8, "t_dropout": 0.0, "t_max_positions": 10000,
     "t_norm_in": true, "t_norm_in_group": false, "t_group_norm": false, "t_norm_first": true, "t_norm_out": true,
     "t_max_period": 10000.0, "t_weight_decay": 0.0, "t_lr": null, "t_layer_scale": true, "t_gelu": true,
     "t_weight_pos_embed": 1.0, "t_sin_random_shift": 0, "t_cape_mean_normalize": true, "t_cape_augment": true,
     "t_cape_glob_loc_scale": [5000.0, 1.0, 1.4], "t_sparse_self_attn": false, "t_sparse_cross_attn": false,
     "t_mask_type": "diag", "t_mask_random_seed": 42, "t_sparse_attn_window": 500, "t_global_window": 100,
     "t_sparsity": 0.95, "t_auto_sparsity": false, "t_cross_first": false, "rescale": 0.1, "samplerate": 44100,
     "segment": 10, "use_train_segment": true}
    """
)

# Arguments with only one value that our model can express, and what any other value asks for.
FIXED: dict[str, str] = {
    "cac": "magnitude spectrograms",
    "wiener_iters": "Wiener filtering",
    "end_iters": "Wiener filtering",
    "wiener_residual": "Wiener filtering",
    "rewrite": "layers without gated convolutions",
    "multi_freqs": "separate layers per frequency band",
    "context_enc": "encoder convolutions with context",
    "t_emb": "positions that are not sinusoidal",
    "t_norm_in": "a transformer without input norm",
    "t_norm_in_group": "group norm before the transformer",
    "t_group_norm": "group norms inside the transformer",
    "t_norm_first": "norms after attention",
    "t_norm_out": "transformer layers without output norm",
    "t_layer_scale": "transformer layers without layer scale",
    "t_gelu": "ReLU in the transformer",
    "t_sin_random_shift": "random shifts of the positions",
    "t_sparse_self_attn": "sparse attention",
    "t_sparse_cross_attn": "sparse attention",
    "t_cross_first": "cross-attention in the first layer",
}

_NAMES = tuple(
    (re.compile(ours), official)
    for ours, official in (
        (r"^branches\.0\.embedding\.", "freq_emb.embedding."),
        (r"^branches\.0\.(encoder|decoder)\.", r"\1."),
        (r"^wave\.(encoder|decoder)\.", r"t\1."),
        (r"\.dconv\.blocks\.", ".dconv.layers."),
        (r"^transformer\.wave\.(up|down)\.", r"channel_\1sampler_t."),
        (r"^transformer\.(up|down)\.", r"channel_\1sampler."),
        (r"^transformer\.wave\.(norm_in|layers)\.", r"crosstransformer.\1_t."),
        (r"^transformer\.(norm_in|layers)\.", r"crosstransformer.\1."),
    )
)
_LAYER = re.compile(r"^(crosstransformer\.layers(?:_t)?\.(\d+)\.)(attention|norm_query|norm_memory|norm_hidden)\b")
_SELF = {"attention": "self_attn", "norm_query": "norm1", "norm_hidden": "norm2"}
_CROSS = {"attention": "cross_attn", "norm_query": "norm1", "norm_memory": "norm2", "norm_hidden": "norm3"}


def load_official(path: str | Path, segment_s: float | Fraction | None = None) -> Separator:
    """Read an official HTDemucs weight file."""
    return convert(read_package(path), segment_s)


def convert(package: OfficialPackage, segment_s: float | Fraction | None = None) -> Separator:
    """Build the separator of a package; see `load_official`."""
    if package.klass != SUPPORTED_CLASS:
        what = OTHER_CLASSES.get(package.klass, "another architecture")
        raise WeightsError(f"{package.where} holds {package.klass} ({what}); only HTDemucs can be read")
    try:
        config = config_of(named_arguments(package))
        shorter = config.segment_samples if segment_s is None else int(segment_s * config.sample_rate_hz)
        if shorter < config.segment_samples:
            config = config.with_values({"segment_samples": shorter})
        model = Separator(config)
    except (WeightsError, ConfigError) as error:
        raise WeightsError(f"{package.where}: {error}") from error
    names = {official_name(name): name for name in model.state_dict()}
    shapes = {official: tuple(model.state_dict()[name].shape) for official, name in names.items()}
    check_fit(shapes, package.state, package.where)
    fill(model, {name: package.state[official] for official, name in names.items()}, package.where)
    return model.eval()


def named_arguments(package: OfficialPackage) -> dict[str, Any]:
    """All arguments by name, defaults included, without the names that HTDemucs 4.1 leaves out itself."""
    if len(package.args) > len(DEFAULTS):
        raise WeightsError(f"{len(package.args)} arguments are given; HTDemucs has {len(DEFAULTS)}")
    given = dict(zip(DEFAULTS, package.args, strict=False))
    given.update({name: value for name, value in package.kwargs.items() if name in DEFAULTS})
    if not given.get("sources"):
        raise WeightsError("no sources are named; get the file again")
    return {**DEFAULTS, **given}


def config_of(arguments: Mapping[str, Any]) -> SeparatorConfig:
    """Config of the separator that equals HTDemucs with these arguments.

    `arguments`: every argument of HTDemucs by name. Raises WeightsError for a value our separator cannot express;
    ConfigError for a value of the wrong type.
    """
    _check_expressible(arguments)
    transformer = TransformerConfig.from_dict(
        {
            "kind": "softmax" if arguments["t_layers"] else "none",
            "layers": arguments["t_layers"] or 1,
            "heads": arguments["t_heads"],
            "hidden_scale": arguments["t_hidden_scale"],
            "dropout": arguments["t_dropout"],
            "bottom_channels": arguments["bottom_channels"],
            "max_period": arguments["t_max_period"],
            "position_weight": arguments["t_weight_pos_embed"],
        }
    )
    same = ("audio_channels", "channels", "growth", "depth", "kernel_size", "stride", "context", "norm_starts")
    same += ("norm_groups", "dconv_mode", "dconv_depth", "dconv_init")
    return SeparatorConfig.from_dict(
        {
            **{name: arguments[name] for name in same},
            "sources": tuple(arguments["sources"]),
            "sample_rate_hz": arguments["samplerate"],
            "segment_samples": _segment_samples(arguments),
            "pad_to_segment": bool(arguments["use_train_segment"]),
            "n_fft": (arguments["nfft"],),
            "dconv_compress": arguments["dconv_comp"],
            "embedding_gain": arguments["freq_emb"] or 0.0,
            "embedding_boost": arguments["emb_scale"],
            "embedding_smooth": bool(arguments["emb_smooth"]),
            "rescale": arguments["rescale"] or 0.0,
            "inverse": "demucs",
            "bottleneck": FusionConfig(kind="mean").to_dict(),
            "transformer": transformer.to_dict(),
            "output": FusionConfig(kind="mean").to_dict(),
        }
    )


def _segment_samples(arguments: Mapping[str, Any]) -> int:
    try:
        samples = int(arguments["segment"] * arguments["samplerate"])
    except (TypeError, ValueError, OverflowError) as error:
        raise WeightsError(f"segment {arguments['segment']!r} is not a length ({one_line(error)})") from error
    if samples < 1:
        raise WeightsError(f"segment {arguments['segment']!r} is not a length; more than 0 seconds are needed")
    return samples


def _check_expressible(arguments: Mapping[str, Any]) -> None:
    for name, meaning in FIXED.items():
        value, needed = arguments[name], DEFAULTS[name]
        if value != needed and (value or needed):
            raise WeightsError(f"{name} = {value!r} ({meaning}) is not supported; only {needed!r} is")
    if arguments["channels_time"] not in (None, arguments["channels"]):
        raise WeightsError(f"channels_time = {arguments['channels_time']!r} (another width in time) is not supported")
    if arguments["bottom_channels"] and not arguments["t_layers"]:
        raise WeightsError("bottom_channels without transformer layers is not supported")
    for name in ("kernel_size", "stride", "depth", "nfft"):
        if type(arguments[name]) is not int or arguments[name] < 1:
            raise WeightsError(f"{name} = {arguments[name]!r} is not a whole number of 1 or more")
    kernel, stride = arguments["kernel_size"], arguments["stride"]
    if kernel != 2 * stride or stride % 2:
        raise WeightsError(f"kernel_size {kernel} with stride {stride} is not supported; 8 with 4 is")
    innermost = arguments["nfft"] // 2 // stride ** (arguments["depth"] - 1)
    if innermost <= kernel:
        raise WeightsError(
            f"nfft {arguments['nfft']} leaves {innermost} bins for the last layer, "
            f"where HTDemucs merges its branches; more than {kernel} are needed"
        )


def official_name(name: str) -> str:
    """Official name of one of our tensors."""
    for ours, official in _NAMES:
        name = ours.sub(official, name)
    found = _LAYER.match(name)
    if found is None:
        return name
    prefix, index, part = found.groups()
    return f"{prefix}{(_CROSS if int(index) % 2 else _SELF)[part]}{name[found.end() :]}"
