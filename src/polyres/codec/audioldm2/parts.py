"""Autoencoder and vocoder of AudioLDM2, part by part: from the Hub, from a folder, or tiny ones with random weights."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyres.codec.mel.chain import FRAMES_PER_STEP
from polyres.core.errors import OfflineError, WeightsError
from polyres.core.whole_files import make_scratch_folder
from polyres.dsp.mel import MelConfig, require_front_end
from polyres.weights.files import one_line
from polyres.weights.hub import OFFLINE_REASON, answering, hub_url, offline_wanted
from polyres.weights.places import cache_folder

REPOSITORIES = {
    "audioldm2": "cvssp/audioldm2",
    "audioldm2-large": "cvssp/audioldm2-large",
    "audioldm2-music": "cvssp/audioldm2-music",
}
"""Where the weights are on the Hugging Face Hub."""

LICENCE = "CC BY-NC-SA 4.0: not for commercial use"
TINY = "audioldm2_tiny"
_FILES = ("vae/config.json", "vae/*.safetensors", "vocoder/config.json", "vocoder/*.safetensors")
_TINY_VERSION = 1
_TINY_SEED = 20

logger = logging.getLogger("polyres")


def hub_folder(name: str) -> Path:
    """Find the parts of a released model, downloading them where they are not there yet.

    Returns:
        A folder with `vae` and `vocoder`.

    Raises:
        OfflineError: when they cannot be had; says how to get them by hand, and their licence.
    """
    import huggingface_hub

    repository = REPOSITORIES[name]
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(_FILES), local_files_only=True))
        if has_both_parts(folder):
            return folder
    except (OSError, ValueError) as error:
        logger.debug("%s is not in the cache: %s", repository, one_line(error))
    try:
        if offline_wanted():
            raise ConnectionError(OFFLINE_REASON)
        if not answering([hub_url(repository, _FILES[0])]):
            raise ConnectionError("the Hugging Face Hub does not answer")
        logger.warning("%s: downloading from the Hugging Face Hub; licence %s", name, LICENCE)
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(_FILES)))
    except Exception as error:  # of whichever network library the hub's client uses
        raise OfflineError(
            f"cannot download {name} ({_reason(error)}); where there is a network, run "
            f'\'hf download {repository} --include "vae/*" "vocoder/*" --local-dir DIR\', bring the folder here and '
            f"name it instead of {name} (licence {LICENCE}; audioldm2_tiny needs no download)"
        ) from error


def has_both_parts(folder: Path) -> bool:
    """Say whether a folder holds both parts, `vae` and `vocoder`, complete."""
    return all(
        (folder / part / "config.json").is_file()
        and any(path.is_file() for path in (folder / part).glob("*.safetensors"))
        for part in ("vae", "vocoder")
    )


def _reason(error: Exception) -> str:
    """First line of what a library says, without its advice."""
    return one_line(Exception((str(error) or type(error).__name__).splitlines()[0]))


def load_autoencoder(folder: Path, mel: MelConfig) -> nn.Module:
    """Load diffusers' AutoencoderKL from a folder with `vae` or from that part itself, for evaluation."""
    path = _part(folder, "vae")
    with _wants_libraries():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    def load() -> tuple[nn.Module, dict[str, Any]]:
        return AutoencoderKL.from_pretrained(str(path), low_cpu_mem_usage=False, output_loading_info=True)

    model = _loaded(load, path)
    config = model.config
    shrinks = 2 ** (len(config.block_out_channels) - 1)
    if (config.in_channels, config.out_channels, shrinks) != (1, 1, FRAMES_PER_STEP):
        raise WeightsError(
            f"{path} takes {config.in_channels} and gives {config.out_channels} channels and shrinks by {shrinks}; "
            f"an autoencoder of {mel.mel_bins} mels takes and gives 1 and shrinks by {FRAMES_PER_STEP}"
        )
    return model.float().eval()


def load_vocoder(folder: Path, mel: MelConfig) -> nn.Module:
    """Load transformers' SpeechT5HifiGan from a folder with `vocoder` or from that part itself, for evaluation."""
    path = _part(folder, "vocoder")
    with _wants_libraries():
        from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan

    def load() -> tuple[nn.Module, dict[str, Any]]:
        with _no_progress_bars():
            return SpeechT5HifiGan.from_pretrained(str(path), output_loading_info=True)

    model = _loaded(load, path)
    trained = {
        "sample_rate_hz": model.config.sampling_rate,
        "hop_length": math.prod(model.config.upsample_rates),
        "mel_bins": model.config.model_in_dim,
    }
    require_front_end(mel, mel.model_copy(update=trained), f"vocoder {path}")
    return model.float().eval()


def tiny_folder() -> Path:
    """Return a folder of tiny parts with fixed random weights, made in the cache on first use."""
    folder = cache_folder() / f"{TINY}-{_TINY_VERSION}"
    if os.path.isfile(folder / "vocoder" / "config.json"):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = make_scratch_folder(folder.parent)
    except OSError:
        return _tiny_elsewhere()
    try:
        _write_tiny(work)
        try:
            work.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "vocoder" / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


@cache
def _tiny_elsewhere() -> Path:
    """Make the tiny parts in a folder that lasts as long as the process."""
    import atexit

    folder = make_scratch_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write_tiny(folder)
    return folder


def _write_tiny(folder: Path) -> None:
    """Save tiny parts with random weights."""
    with _wants_libraries():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from transformers.models.speecht5.configuration_speecht5 import SpeechT5HifiGanConfig
        from transformers.models.speecht5.modeling_speecht5 import SpeechT5HifiGan

    autoencoder = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=4,
        sample_size=1024,
        scaling_factor=0.41,
    )
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=64,
            sampling_rate=16000,
            upsample_initial_channel=64,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3]],
            normalize_before=False,
        )
    )
    generator = torch.Generator().manual_seed(_TINY_SEED)
    for module in (autoencoder, vocoder):
        _fill_randomly(module, generator)
    with _no_progress_bars():
        autoencoder.save_pretrained(str(folder / "vae"))
        vocoder.save_pretrained(str(folder / "vocoder"))


def _fill_randomly(module: nn.Module, generator: torch.Generator) -> None:
    """Give every weight a variance that keeps the level from layer to layer."""
    with torch.no_grad():
        for value in module.parameters():
            if value.ndim < 2:
                continue  # biases are 0 and gains 1 as they were made
            fan_in = value[0].numel() if value.shape[0] >= value.shape[1] else value[:, 0].numel()
            value.copy_(torch.randn(value.shape, generator=generator) / fan_in**0.5)
        for name, value in module.named_parameters():
            if value.ndim == 1:
                value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


def _part(folder: Path, name: str) -> Path:
    """Return the folder of one part."""
    given = Path(os.path.expanduser(folder))
    for path in (given / name, given):
        if os.path.isfile(path / "config.json"):
            return path
    raise WeightsError(f"{given} has no {name} with a config.json; give a folder as AudioLDM2 has it on the Hub")


def _loaded(load: Callable[[], tuple[nn.Module, dict[str, Any]]], path: Path) -> nn.Module:
    """Load a part, all of its weights."""
    try:
        model, found = load()
    except Exception as error:  # of the libraries, which raise whatever they come across
        raise WeightsError(f"cannot read {path}: {one_line(error)}; get the folder again") from error
    for kind in ("missing_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in found.get(kind, ()) or ()):
            raise WeightsError(
                f"{path}: {len(names)} weights are missing or misshapen, first {names[0]}; get the folder again"
            )
    return model


@contextmanager
def _wants_libraries() -> Iterator[None]:
    """Say how to get the libraries where one is missing."""
    try:
        yield
    except ImportError as error:
        raise WeightsError(
            f"AudioLDM2's parts need diffusers and transformers ({one_line(error)}); pip install 'polyres[audioldm2]'"
        ) from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars for a model that loads in no time."""
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
