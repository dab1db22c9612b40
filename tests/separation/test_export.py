"""A graph gives what torch gives, says what it is, and is not written where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from polyres.audio.files import read_audio
from polyres.core.errors import ConfigError, OutputError, UnknownNameError
from polyres.nn.body import BodyConfig
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation import export
from polyres.separation.bag import Bag
from polyres.separation.engines import ENGINES, GRAPH_KEY
from polyres.separation.export import export_separator, trial_mixtures
from polyres.separation.load import LoadedSeparator, load_separator
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator
from tests.separation.toy_graphs import GAINS, write_toy

SMALL = SeparatorConfig(
    sources=("voice", "rest"),
    n_fft=(512, 1024),
    hop_ratio=2,
    channels=4,
    wave_branch=False,
    segment_samples=1000,
    transformer=TransformerConfig(kind="none"),
    output=FusionConfig(kind="source_weights"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = {"licence": "CC0 1.0"}
    return save_separator(Separator(SMALL), tmp_path_factory.mktemp("weights") / "tiny.safetensors", card)


@pytest.fixture(scope="module")
def graph(weights: Path) -> Path:
    return export_separator(str(weights), "onnx", weights.parent / "tiny.onnx")[0]


def wave() -> np.ndarray:
    return 0.2 * np.random.default_rng(1).standard_normal((2, 10_000)).astype(np.float32)


@pytest.mark.slow
def test_files_of_a_graph_are_those_of_torch(weights: Path, graph: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.wav", wave().T, 44100, subtype="FLOAT")
    reference = load_separator(weights, "cpu", "fp32")
    made = ENGINES.build("onnxruntime", str(graph), "auto", "auto")
    assert (made.name, made.weights_id, made.precision) == ("tiny", reference.weights_id, "fp32")
    expected = reference.separate_file(tmp_path / "song.wav", tmp_path / "torch")
    found = made.separate_file(tmp_path / "song.wav", tmp_path / "graph")
    assert list(found.stems) == ["voice", "rest"]
    for name, path in found.stems.items():
        np.testing.assert_allclose(read_audio(path)[0], read_audio(expected.stems[name])[0], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_file_says_all_that_is_needed(graph: Path) -> None:
    proto = onnx.load(graph)
    facts = json.loads({one.key: one.value for one in proto.metadata_props}[GRAPH_KEY])
    wanted = {"name": "tiny", "sources": ["voice", "rest"], "sample_rate_hz": 44100, "segment_samples": 1000}
    wanted |= {"n_fft": [512, 1024], "hop_samples": [256, 512], "licence": "CC0 1.0", "precision": "fp32"}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["error"] <= 1e-4
    assert [one.version for one in proto.opset_import if one.domain == ""] == [export.OPSET]
    shapes = [
        [d.dim_value for d in one.type.tensor_type.shape.dim] for one in (*proto.graph.input, *proto.graph.output)
    ]
    assert shapes == [[1, 2, 1000], [1, 2, 2, 1000]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unet", "wave", "band_split", "tfc_tdf", "conv"])
def test_every_body_becomes_a_graph(tmp_path: Path, kind: str) -> None:
    changes: dict[str, dict[str, object]] = {
        "unet": {"head": "mask", "bottleneck": FusionConfig(kind="band_weights")},
        "wave": {"wave_branch": True, "transformer": TransformerConfig(kind="linear", layers=2), "hop_ratio": 4},
        "band_split": {"body": BodyConfig(kind="band_split", blocks=1, frame_hop=256), "channels": 8, "head": "mask"},
        "tfc_tdf": {"body": BodyConfig(kind="tfc_tdf", blocks=1), "head": "mask"},
        "conv": {"output": FusionConfig(kind="conv", taps=5), "inverse": "demucs"},
    }
    model = Separator(SMALL.with_values(changes[kind]))
    path = save_separator(model, tmp_path / "m.safetensors", dtype="fp32")
    assert export_separator(str(path), "onnx", tmp_path / "m.onnx")[1].error <= 1e-4


@pytest.mark.slow
def test_openvino_takes_the_same_facts(weights: Path, tmp_path: Path) -> None:
    path, facts = export_separator(str(weights), "openvino", tmp_path / "tiny.xml")
    made = ENGINES.build("openvino", str(path), "cpu", "fp32")
    assert (made.name, made.sources, facts.error <= 1e-4) == ("tiny", ("voice", "rest"), True)


def test_a_graph_that_gives_something_else_is_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "onnx_graph", lambda model: onnx.load(write_toy(tmp_path / "toy.onnx")))
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "old.onnx").write_bytes(b"older")
    with pytest.raises(ConfigError, match=r"the graph of .*tiny.safetensors is .* off torch, above 0.0001; use --eng"):
        export_separator(str(weights), "onnx", kept / "old.onnx")
    assert [path.name for path in kept.iterdir()] == ["old.onnx"]
    assert (kept / "old.onnx").read_bytes() == b"older"


def test_a_graph_that_gives_the_same_is_written_whole(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "onnx_graph", lambda model: onnx.load(write_toy(tmp_path / "toy.onnx")))
    monkeypatch.setattr(export, "torch_runner", lambda *given: lambda mix: mix[:, None] * GAINS)
    path, facts = export_separator(str(weights), "onnx", tmp_path / "new" / "tiny.onnx")
    assert (facts.error, facts.licence, facts.n_fft, facts.hop_samples) == (0, "CC0 1.0", (512, 1024), (256, 512))
    assert [one.name for one in path.parent.iterdir()] == ["tiny.onnx"]
    made = ENGINES.build("onnxruntime", str(path), "auto", "auto")
    assert (made.name, made.sources, made.weights_id) == ("tiny", ("voice", "rest"), facts.weights_id)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*t.onnx"):
        export_separator(str(weights), "onnx", tmp_path / "file" / "t.onnx")


@pytest.mark.slow
def test_weights_are_halved_where_nothing_is_lost(weights: Path, graph: Path) -> None:
    kinds = {one.name: one.data_type for one in onnx.load(graph).graph.initializer}
    assert kinds["branches.0.encoder.3.conv.weight.half"] == onnx.TensorProto.FLOAT16  # saved as float16
    values = np.float32([1 / 3, 0.5]).repeat(64)
    tensors = [onnx.numpy_helper.from_array(values[at : at + 64], name) for at, name in ((0, "third"), (64, "half"))]
    made = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    export._halve(made)
    assert [one.name for one in made.graph.initializer] == ["third", "half.half"]
    assert [node.op_type for node in made.graph.node] == ["Cast"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"to": "tflite"}, UnknownNameError, r"unknown format 'tflite'; known: onnx, openvino"),
        ({"precision": "int8"}, UnknownNameError, r"unknown precision 'int8'; known: fp32, fp16"),
        ({"out": Path("a.xml")}, ConfigError, r"a.xml: --to onnx writes .onnx files; give --out such a name"),
        ({"out": Path("a")}, ConfigError, r"--to onnx writes .onnx files"),
    ],
)
def test_wrong_words_are_refused_first(changes: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        export_separator("no such model", **changes)  # type: ignore[arg-type]


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--to onnx needs onnx, onnxscript, onnxruntime; pip install 'poly"):
        export_separator("default")


def test_a_bag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = LoadedSeparator(Bag([Separator(SMALL), Separator(SMALL)]), "bag", "cpu")
    monkeypatch.setattr(export, "load_separator", lambda *given: bag)
    with pytest.raises(ConfigError, match=r"bag is a bag of 2 models; a graph holds one: name one's file"):
        export_separator("bag")


@pytest.mark.slow
def test_a_part_that_graphs_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Separator(SMALL)
    monkeypatch.setattr(model, "forward", lambda mix: torch.linalg.svd(mix[0])[1])
    with pytest.raises(ConfigError, match=r"this model cannot become a graph \(.*\); use --engine torch"):
        export.onnx_graph(model)


def test_trials_are_of_deviation_one() -> None:
    for mix in trial_mixtures(2, 4096, 44100):
        assert mix.dtype == np.float32
        assert mix.std() == pytest.approx(1, rel=1e-5)
