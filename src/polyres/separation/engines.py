"""What computes a separator, by name: torch itself, or a runtime that takes an exported graph and needs no torch."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.file_names import shown
from polyres.audio.sources import Block
from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, WeightsError
from polyres.core.json_text import json_value
from polyres.core.process import tune_cpu
from polyres.dsp.overlap import Runner
from polyres.separation.ensemble import Ensemble, Member
from polyres.separation.labels import DEFAULT, model_label
from polyres.separation.ready import ReadySeparator
from polyres.weights.places import cache_folder, weights_file

GRAPH_KEY = "polyres"
"""Key of a graph's metadata under which its facts are, as JSON."""
INPUT_NAME, OUTPUT_NAME = "mix", "stems"
SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml"}
EXPORT_KINDS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What `polyres export --to` calls the graphs that an engine takes."""

ENGINES: Catalogue[ReadySeparator] = Catalogue("engine")
"""Functions that take (model, device, precision), as `polyres separate` does, and load it."""


@dataclass(frozen=True)
class GraphFacts:
    """What a graph says about itself, enough to separate with it.

    Args:
        name: of the model.
        sources: names of the stems.
        sample_rate_hz: of the audio.
        audio_channels: channels C of `mix` `[1, C, T]` and `stems` `[1, S, C, T]`, input and output of the graph.
        segment_samples: T.
        n_fft: window lengths of the model's transforms, which are part of the graph.
        hop_samples: their frame distances.
        licence: of the weights.
        precision: of the weights in the file, "fp32" or "fp16"; it computes in fp32.
        weights_id: mark of the weights, as `LoadedSeparator` has it.
        weights_sha256: of the weight file where the model was given as a path, else empty.
        error: largest difference to torch that the export found.
    """

    name: str
    sources: tuple[str, ...]
    sample_rate_hz: int
    audio_channels: int
    segment_samples: int
    n_fft: tuple[int, ...]
    hop_samples: tuple[int, ...]
    licence: str
    precision: str
    weights_id: str
    weights_sha256: str
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def read_facts(text: str | None, path: Path) -> GraphFacts:
    """Read what stands in a graph's metadata.

    Args:
        text: the metadata under `GRAPH_KEY`; None where there is none.
        path: of the graph, for messages.

    Returns:
        The facts.

    Raises:
        WeightsError: when they are missing or damaged.
    """
    again = "make it again with polyres export"
    if not text:
        raise WeightsError(f"{shown(path)} is no graph of polyres: it does not say what it separates; {again}")
    try:
        values = json_value(text)
        made = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        facts = GraphFacts(**made)
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{shown(path)}: what it says of itself is damaged or of another time; {again}") from error
    counts = (facts.sample_rate_hz, facts.audio_channels, facts.segment_samples, len(facts.sources))
    texts = (facts.name, facts.weights_id, *facts.sources)
    if not all(type(n) is int and n > 0 for n in counts) or not all(type(t) is str for t in texts):
        raise WeightsError(f"{shown(path)}: what it says of itself is damaged; {again}")
    return facts


class GraphSeparator(ReadySeparator):
    """An exported model, computed by another runtime than torch."""

    def __init__(self, facts: GraphFacts, run: Callable[[Block], Block], engine: str, name: str) -> None:
        """Wrap a graph that is loaded.

        Args:
            facts: what it says about itself.
            run: `[1, C, segment_samples]` to `[1, S, C, segment_samples]`.
            engine: what computes.
            name: of the folder for its results.
        """
        self.name, self.device, self.engine, self.facts = name, "cpu", engine, facts
        self.run_segments = _one_by_one(run)
        member = Member(self.run_segments, facts.segment_samples, (1.0,) * len(facts.sources))
        self._ensemble = Ensemble((member,), facts.sources, facts.sample_rate_hz, facts.audio_channels, "fp32")

    @property
    def weights_id(self) -> str:
        """16 hex digits that change with any weight of the model."""
        return self.facts.weights_id


def _one_by_one(run: Callable[[Block], Block]) -> Runner:
    """Call a graph of one segment for each of several."""
    return lambda segments: np.concatenate([run(segments[at : at + 1]) for at in range(len(segments))])


def graph_path(model: str, engine: str) -> Path:
    """Say where the graph of a model lies, or is to lie.

    Args:
        model: a name, a weight file or folder, or the graph itself.
        engine: what is to compute it.

    Returns:
        The graph itself where it was given, else a file in the cache folder.
    """
    given = Path(model).expanduser()
    if given.suffix in SUFFIXES.values():
        return given
    return cache_folder() / "exports" / f"{model_label(model)}{SUFFIXES[engine]}"


def weights_mark(model: str) -> str:
    """SHA-256 of the weight file that a path means; empty for a name."""
    path = weights_file(model)
    if model == DEFAULT or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def graph_here(model: str, engine: str, device: str, precision: str) -> Path:
    """Find the graph of a model for an engine that can compute it here.

    Args:
        model: as the user gave it.
        engine: name of the engine.
        device: as the user gave it.
        precision: as the user gave it.

    Returns:
        The file.

    Raises:
        ConfigError: when the engine is not installed, or cannot do what was asked for.
        WeightsError: when there is no such file.
    """
    if importlib.util.find_spec(engine) is None:
        extra = EXPORT_KINDS[engine]
        raise ConfigError(f"engine {engine} is not installed; pip install 'polyres[{extra}]', or --engine torch")
    if device not in ("auto", "cpu"):
        raise ConfigError(f"engine {engine} computes on the cpu, not on {device}; use --device cpu, or --engine torch")
    if precision not in ("auto", "fp32"):
        raise ConfigError(f"engine {engine} computes in fp32, not in {precision}; leave it out, or --engine torch")
    path = graph_path(model, engine)
    if path.suffix != SUFFIXES[engine]:
        raise ConfigError(f"{shown(path)}: engine {engine} takes {SUFFIXES[engine]} files; give one of those")
    if not path.is_file():
        how = "check the path" if path == Path(model).expanduser() else f"make it once: {export_words(model, engine)}"
        raise WeightsError(f"there is no graph {shown(path)}; {how}")
    return path


def export_words(model: str, engine: str) -> str:
    """The command that makes the graph of a model."""
    return f"polyres export {model} --to {EXPORT_KINDS[engine]}"


def _ready(model: str, engine: str, path: Path, text: str | None, run: Callable[[Block], Block]) -> ReadySeparator:
    facts = read_facts(text, path)
    if path != Path(model).expanduser() and facts.weights_sha256 != weights_mark(model):
        raise WeightsError(f"{shown(path)} was made of other weights; make it again: {export_words(model, engine)}")
    name = facts.name if path == Path(model).expanduser() else model_label(model)
    return GraphSeparator(facts, run, engine, name)


@ENGINES.register("torch", summary="the reference, on any device")
def load_torch(model: str, device: str, precision: str) -> ReadySeparator:
    """Load a model with torch; see `polyres.separation.load.load_separator`."""
    from polyres.separation.load import load_separator

    return load_separator(model, device, precision)


@ENGINES.register("onnxruntime", summary="an exported graph in ONNX Runtime, on the CPU; starts without torch")
def load_onnxruntime(model: str, device: str, precision: str) -> ReadySeparator:
    """Load the graph of a model into ONNX Runtime; see `graph_here`."""
    path = graph_here(model, "onnxruntime", device, precision)
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = tune_cpu().threads
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the processor
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise WeightsError(f"{shown(path)} cannot be loaded; make it again with polyres export") from error
    text = session.get_modelmeta().custom_metadata_map.get(GRAPH_KEY)
    return _ready(model, "onnxruntime", path, text, lambda one: session.run([OUTPUT_NAME], {INPUT_NAME: one})[0])


@ENGINES.register("openvino", summary="an exported graph in OpenVINO, on the CPU; starts without torch")
def load_openvino(model: str, device: str, precision: str) -> ReadySeparator:
    """Load the graph of a model into OpenVINO; see `graph_here`."""
    path = graph_here(model, "openvino", device, precision)
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": tune_cpu().threads}
    try:
        graph = openvino.Core().read_model(path)
        text = graph.get_rt_info([GRAPH_KEY]).astype(str) if graph.has_rt_info([GRAPH_KEY]) else None
        call = openvino.compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise WeightsError(f"{shown(path)} cannot be loaded; make it again with polyres export") from error
    return _ready(model, "openvino", path, text, lambda one: np.array(call(one)[0]))
