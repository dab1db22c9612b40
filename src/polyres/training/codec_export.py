"""A fine-tuned autoencoder as a codec: a folder with the parts as diffusers and transformers write them."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from polyres.core.errors import OutputError

FOLDER = "codec"


def write_codec(autoencoder: Any, vocoder: Any, path: Path, card: Mapping[str, Any]) -> Path:
    """Write the weights as a file, and the whole codec as a folder beside it; old ones are replaced when all is there.

    Args:
        autoencoder: diffusers' AutoencoderKL.
        vocoder: transformers' SpeechT5HifiGan.
        path: the weight file; the codec goes to `codec` in the same folder.
        card: what is known of the weights.

    Returns:
        The folder of the codec.

    Raises:
        OutputError: when it cannot be written.
    """
    target, spare = path.parent / FOLDER, path.parent / f".{FOLDER}-{secrets.token_hex(4)}.part"
    unfinished = path.with_name(f".{path.name}.part")
    try:
        autoencoder.save_pretrained(spare / "vae")
        vocoder.save_pretrained(spare / "vocoder")
        (spare / "card.json").write_text(json.dumps(dict(card), indent=1, default=str), encoding="utf-8")
        tensors = {name: value.detach().cpu().contiguous() for name, value in autoencoder.state_dict().items()}
        save_file(tensors, unfinished, {"card": json.dumps(dict(card), default=str)})
        shutil.rmtree(target, ignore_errors=True)
        spare.replace(target)
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; make room or choose another --out"
        ) from error
    finally:
        shutil.rmtree(spare, ignore_errors=True)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return target
