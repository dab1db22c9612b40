"""Separators on the Hugging Face Hub: published with a card, loaded as `hf://user/repo`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from polyres.core.errors import OfflineError, OutputError, WeightsError
from polyres.core.whole_files import scratch_folder
from polyres.separation.labels import SCHEME, repository_of
from polyres.separation.model import SeparatorConfig
from polyres.separation.weights import WeightsInfo, read_info
from polyres.weights.files import one_line
from polyres.weights.places import weights_file

WEIGHTS_NAME = "model.safetensors"
_ANSWER_S = 5.0
_SCORED = ("score", "drums", "bass", "other", "vocals")


def pull(name: str) -> Path:
    """Return the weights of `hf://user/repo`, downloaded where the Hub's client keeps no copy.

    Raises:
        WeightsError: when there is no such repository, or no polyres model in it.
        OfflineError: when nothing can be downloaded and no copy is here.
        ConfigError: for a name that is no repository.
    """
    from huggingface_hub import errors, hf_hub_download

    repository = repository_of(name)
    try:
        return Path(hf_hub_download(repository, WEIGHTS_NAME, etag_timeout=_ANSWER_S))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise OfflineError(f"cannot download {name} ({one_line(error)}); try again with a network") from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{name} holds no {WEIGHTS_NAME}; models made by 'polyres models push' do") from error
    except errors.HfHubHTTPError as error:
        raise WeightsError(
            f"cannot load {name} ({one_line(error)}); check the name, and sign in if it is private"
        ) from error
    except (errors.HTTPError, OSError) as error:
        raise OfflineError(f"cannot download {name} ({one_line(error)}); try again with a network") from error


def push(source: str | Path, name: str, private: bool = False, message: str | None = None) -> str:
    """Publish a separator with its card; an older one in the repository is replaced.

    Args:
        source: a weight file, or a run folder, of which the best weights are taken.
        name: `user/repo`; made where missing.
        private: whether a new repository is for its owner alone.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        WeightsError: when the weights cannot be read.
        OutputError: when the Hub refuses them, for example without a token in `HF_TOKEN`.
        ConfigError: for a name that is no repository.
    """
    from huggingface_hub import HfApi, errors

    repository, path = repository_of(name), weights_file(source)
    info = read_info(path)
    try:
        with scratch_folder() as folder:
            shutil.copyfile(path, folder / WEIGHTS_NAME)
            (folder / "README.md").write_text(model_card(info, repository), encoding="utf-8")
            api = HfApi(library_name="polyres")
            address = api.create_repo(repository, private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=message or "Weights made with polyres"
            )
    except (errors.HTTPError, errors.LocalTokenNotFoundError, OSError) as error:
        raise OutputError(
            f"cannot publish {repository} ({one_line(error)}); check the name, and the token in HF_TOKEN"
        ) from error
    return str(address)


def model_card(info: WeightsInfo, repository: str) -> str:
    """Write the card of a model in Markdown: what it is, how to use it, data, scores, provenance.

    Source: Hugging Face Hub documentation, "Model Cards" (metadata of the front matter).
    """
    licence = info.card.get("licence")
    facts: dict[str, Any] = {"library_name": "polyres", "pipeline_tag": "audio-to-audio"}
    facts |= {"license": str(licence).lower()} if licence else {}
    facts |= {"tags": ["music-source-separation", "multi-resolution"]}
    sections = [
        f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n\n# {repository.split('/')[1]}",
        f"A music separator for polyres: {', '.join(info.config.sources)}.",
        f"```\npolyres separate song.mp3 --model {SCHEME}{repository}\n```",
        f"```python\nimport polyres\n\nseparator = polyres.load_separator({SCHEME + repository!r})\n```",
        _architecture(info.config),
    ]
    scores = info.card.get("valid")
    if isinstance(scores, dict):
        rows = [f"| {name} | {scores[name]:.2f} |" for name in _SCORED if isinstance(scores.get(name), float)]
        sections.append("\n".join(["Validation, nSDR in dB:", "", "| stem | dB |", "|---|---|", *rows]))
    data = info.card.get("data")
    if isinstance(data, list):
        sections.append("\n".join(["Data:", "", *(f"* {one}" for one in data)]))
    kept = {key: value for key, value in info.card.items() if key not in ("data", "valid", "licence")}
    sections.append(f"Provenance:\n\n```json\n{json.dumps(kept, indent=1, sort_keys=True)}\n```")
    return "\n\n".join(sections) + "\n"


def _architecture(config: SeparatorConfig) -> str:
    """Return a table of what the network is."""
    rows = {
        "rate": f"{config.sample_rate_hz} Hz, {config.audio_channels} channels",
        "resolutions": f"n_fft {', '.join(map(str, config.n_fft))}",
        "body": f"{config.body.kind}, {config.channels} channels, {config.head} head",
        "fusion": f"{config.bottleneck.kind} at the bottleneck, {config.output.kind} at the output",
        "transformer": config.transformer.kind,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
