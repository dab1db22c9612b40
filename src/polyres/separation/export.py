"""Separators as graphs for other runtimes, which are written only when they give what torch gives."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyres.audio.file_names import shown
from polyres.audio.sources import Block
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, OutputError, UnknownNameError
from polyres.core.whole_files import replaced_atomically
from polyres.dsp.real_graph import RealGraph
from polyres.separation.engines import (
    ENGINES,
    EXPORT_KINDS,
    GRAPH_KEY,
    INPUT_NAME,
    OUTPUT_NAME,
    SUFFIXES,
    GraphFacts,
    GraphSeparator,
    graph_path,
    weights_mark,
)
from polyres.separation.labels import DEFAULT, EMBEDDED
from polyres.separation.load import LoadedSeparator, load_separator, torch_runner
from polyres.separation.model import Separator
from polyres.separation.weights import read_card
from polyres.weights.files import one_line
from polyres.weights.hub import LICENCE, OFFICIAL, signature_of
from polyres.weights.packages import is_official
from polyres.weights.places import EMBEDDED_FOLDER, weights_file

OPSET = 20
"""The first with GELU as one operator."""
TOLERANCE = 1e-4
"""Largest difference to torch in a stem of a mixture whose peak is full scale, 1."""
PRECISIONS = ("fp32", "fp16")
LEAST_HALVED = 64
_PACKAGES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxruntime", "onnxscript", "openvino"),
}
_LOUD = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def export_separator(
    model: str = DEFAULT, to: str = "onnx", out: Path | None = None, precision: str = "fp32"
) -> tuple[Path, GraphFacts]:
    """Write a model as a graph of one segment, its transforms included, and compare it with torch first.

    Args:
        model: a name, or the path of a weights file or folder.
        to: "onnx" or "openvino".
        out: the file; by default where `polyres separate --engine` looks for it.
        precision: of the weights in the file; "fp16" rounds them, "fp32" halves only those that lose nothing.

    Returns:
        The file and what it says of itself.

    Raises:
        UnknownNameError: for another format or precision.
        ConfigError: when a package is missing, the model cannot become a graph, or the graph gives something else.
        OutputError: when the file cannot be written.
    """
    engine, path = _target(model, to, out, precision)
    loaded = load_separator(model, "cpu", "fp32")
    if not isinstance(loaded.model, Separator):
        raise ConfigError(f"{model} is a bag of {len(loaded.model.models)} models; a graph holds one: name one's file")
    facts = _facts(loaded, loaded.model, model, precision)
    with tempfile.TemporaryDirectory() as folder:
        trial, made = (Path(folder) / f"{name}{SUFFIXES[engine]}" for name in ("trial", "graph"))
        _write_graph(loaded.model, replace(facts, error=0.0), trial)
        facts = replace(facts, error=_difference(loaded, trial, engine))
        if not facts.error <= TOLERANCE:
            way = "try --precision fp32" if precision == "fp16" else "use --engine torch"
            raise ConfigError(f"the graph of {model} is {facts.error:.1e} off torch, above {TOLERANCE:g}; {way}")
        _describe(trial, made, facts)
        _move(made, path)
    return path, facts


def _target(model: str, to: str, out: Path | None, precision: str) -> tuple[str, Path]:
    """Check what was asked for, before any work; return the engine and the file."""
    engines = {kind: engine for engine, kind in EXPORT_KINDS.items()}
    if to not in engines:
        raise UnknownNameError(unknown_name_message("format", to, engines))
    if precision not in PRECISIONS:
        raise UnknownNameError(unknown_name_message("precision", precision, PRECISIONS))
    missing = [name for name in _PACKAGES[to] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--to {to} needs {', '.join(missing)}; pip install 'polyres[{to}]'")
    path = graph_path(model, engines[to]) if out is None else out.expanduser()
    if path.suffix != SUFFIXES[engines[to]]:
        raise ConfigError(f"{shown(path)}: --to {to} writes {SUFFIXES[engines[to]]} files; give --out such a name")
    return engines[to], path


def _facts(loaded: LoadedSeparator, model: Separator, given: str, precision: str) -> GraphFacts:
    config = model.config
    return GraphFacts(
        loaded.name,
        tuple(model.sources),
        model.sample_rate_hz,
        model.audio_channels,
        model.segment_samples,
        config.n_fft,
        tuple(config.hop_of(n_fft) for n_fft in config.n_fft),
        _licence(given),
        precision,
        loaded.weights_id,
        weights_mark(given),
        math.nan,
    )


def _licence(model: str) -> str:
    path = EMBEDDED_FOLDER / f"{EMBEDDED}.safetensors" if model in (DEFAULT, EMBEDDED) else weights_file(model)
    if model in OFFICIAL or signature_of(path) is not None:
        return LICENCE
    ours = path.suffix == ".safetensors" and path.is_file() and not is_official(path)
    return str(read_card(path).get("licence", "not stated")) if ours else "not stated"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself from the user."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def onnx_graph(model: Separator) -> Any:
    """Trace a model into an ONNX graph of one segment.

    Args:
        model: in evaluation mode, on the CPU.

    Returns:
        The `onnx.ModelProto`.

    Raises:
        ConfigError: when it has a part that ONNX, or the exporter, knows nothing of.
    """
    example = torch.zeros(1, model.audio_channels, model.segment_samples)
    try:
        with _quiet(), torch.no_grad():
            with RealGraph():
                traced = torch.export.export(model, (example,))
            program = torch.onnx.export(
                traced,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                optimize=False,  # takes as long as all the rest, and runtimes do it themselves
                verbose=False,
            )
    except Exception as error:  # those of three packages, with no base of their own
        raise ConfigError(f"this model cannot become a graph ({one_line(error)}); use --engine torch") from error
    assert program is not None
    return program.model_proto


def _write_graph(model: Separator, facts: GraphFacts, path: Path) -> None:
    """Write the graph, with facts that let an engine load it."""
    if facts.precision == "fp16":
        model = deepcopy(model)
        for value in (*model.parameters(), *model.buffers()):
            value.data.copy_(value.data.half())
    traced = path.with_suffix(".traced.onnx")
    traced.write_bytes(onnx_graph(model).SerializeToString())
    _describe(_simplified(traced), path, facts)


def _simplified(path: Path) -> Path:
    """Fold what is constant in a graph: it loads in a third of the time, and OpenVINO misreads some of that."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(path.with_suffix(".simple.onnx"))
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return path.with_suffix(".simple.onnx")


def _halve(graph: Any) -> None:
    """Keep those weights as float16 in the file that lose nothing."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < LEAST_HALVED:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _describe(source: Path, target: Path, facts: GraphFacts) -> None:
    """Write a graph again, with facts in its metadata."""
    text = json.dumps(facts.to_dict(), sort_keys=True)
    if target.suffix == ".xml":
        import openvino

        graph = openvino.Core().read_model(source)
        graph.set_rt_info(text, [GRAPH_KEY])
        openvino.save_model(graph, target, compress_to_fp16=facts.precision == "fp16")
        return
    import onnx

    proto = onnx.load(source)
    _halve(proto)
    onnx.helper.set_model_props(proto, {GRAPH_KEY: text})
    target.write_bytes(proto.SerializeToString())


def _difference(loaded: LoadedSeparator, path: Path, engine: str) -> float:
    """Largest difference between a graph and torch over noise and sounds like music."""
    made = ENGINES.build(engine, str(path), "cpu", "fp32")
    assert isinstance(made, GraphSeparator)
    reference = torch_runner(loaded.model, torch.device("cpu"), "fp32")
    shape = made.audio_channels, made.facts.segment_samples
    worst = 0.0  # models are given deviation 1, so that the peak stands for full scale
    for mix in trial_mixtures(*shape, made.sample_rate_hz):
        off = np.abs(made.run_segments(mix[None]) - reference(mix[None])).max()
        worst = max(worst, float(off / np.abs(mix).max()))
    return worst


def trial_mixtures(channels: int, length: int, rate_hz: int) -> list[Block]:
    """Noise, and decaying chords with clicks over silence, each `[C, length]` of deviation 1."""
    noise = np.random.default_rng(0).standard_normal((channels, length))
    time_s = np.arange(length) / rate_hz
    chords = np.zeros((channels, length))
    for number, pitch_hz in enumerate((55.0, 220.0, 277.2, 1320.0, 5280.0)):
        for channel in range(channels):
            decay = np.exp(-8 * (time_s % (0.25 + number / 8)))
            chords[channel] += np.sin(2 * np.pi * pitch_hz * time_s + channel) * decay
    chords[:, :: max(1, rate_hz // 3)] += 2
    return [(mix / mix.std()).astype(np.float32) for mix in (noise, chords)]


def _move(made: Path, path: Path) -> None:
    """Move a graph to its place, its weights first where they are a file of their own."""
    pairs = [(made, path)]
    if path.suffix == ".xml":
        pairs.insert(0, (made.with_suffix(".bin"), path.with_suffix(".bin")))
    try:
        for source, target in pairs:
            with replaced_atomically(target) as temporary:
                temporary.write_bytes(source.read_bytes())
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {shown(path)} ({reason}); choose another --out or make room") from error
