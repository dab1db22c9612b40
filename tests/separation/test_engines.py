"""Which engines there are, and what is told where one cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError, PolyresError, UnknownNameError, WeightsError
from polyres.separation import engines
from polyres.separation.engines import ENGINES, graph_path, read_facts
from polyres.separation.load import LoadedSeparator
from tests.separation.toy_graphs import FACTS, write_toy


def test_a_graph_separates_files_without_torch(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    song = 0.1 * np.random.default_rng(0).standard_normal((4321, 2))
    soundfile.write(tmp_path / "song.wav", song, 8000, subtype="FLOAT")
    words = ["separate", str(tmp_path / "song.wav"), "--model", str(path), "--engine", "onnxruntime"]
    words += ["--out", str(tmp_path / "out"), "--bit-depth", "float", "--batch", "3"]
    code = f"import sys; from polyres.cli.main import main; s = main({words!r}); "
    code += "sys.exit(s or 9 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, gain in (("left", 1.0), ("half", 0.5)):
        stem, rate_hz = soundfile.read(tmp_path / "out" / "toy" / "song" / f"{name}.wav")
        assert rate_hz == 8000
        np.testing.assert_allclose(stem - stem.mean(), gain * (song - song.mean()), rtol=0, atol=1e-6)


def test_torch_is_an_engine() -> None:
    assert ENGINES.names()[:3] == ["torch", "onnxruntime", "openvino"]
    made = ENGINES.build("torch", "default", "cpu", "fp32")
    assert isinstance(made, LoadedSeparator)
    assert made.engine == "torch"


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown engine 'onnx'; known: torch, onnxruntime, openvino"):
        ENGINES.build("onnx", "default", "cpu", "fp32")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("toy", "cuda", "auto"), r"engine onnxruntime computes on the cpu, not on cuda; use --device cpu"),
        (("toy", "cpu", "bf16"), r"engine onnxruntime computes in fp32, not in bf16; leave it out"),
        (("toy", "auto", "auto"), r"there is no graph .*exports/toy.onnx; make it once: polyres export toy --to onnx$"),
        (("./toy.onnx", "auto", "auto"), r"there is no graph toy.onnx; check the path"),
        (("toy.xml", "auto", "auto"), r"toy.xml: engine onnxruntime takes .onnx files"),
    ],
)
def test_what_an_engine_cannot_do_is_told(given: tuple[str, str, str], message: str) -> None:
    with pytest.raises(PolyresError, match=message):
        ENGINES.build("onnxruntime", *given)


@pytest.mark.parametrize(("engine", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_runtime_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, engine: str, extra: str) -> None:
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"engine {engine} is not installed; pip install 'polyres\[{extra}\]'"):
        ENGINES.build(engine, "default", "cpu", "fp32")


def test_graphs_are_kept_by_label_and_belong_to_their_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"first")
    write_toy(
        graph_path(str(weights), "onnxruntime"),
        {**FACTS.to_dict(), "weights_sha256": engines.weights_mark(str(weights))},
    )
    assert ENGINES.build("onnxruntime", str(weights), "cpu", "fp32").name == "mine"
    weights.write_bytes(b"second")
    with pytest.raises(WeightsError, match=r"mine.onnx was made of other weights; make it again: polyres export"):
        ENGINES.build("onnxruntime", str(weights), "cpu", "fp32")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, r"is no graph of polyres: it does not say what it separates; make it again with polyres export"),
        ([1], "what it says of itself is damaged"),
        ({"name": "toy"}, "what it says of itself is damaged or of another time"),
        ({**FACTS.to_dict(), "later": 1}, "of another time"),
        ({**FACTS.to_dict(), "segment_samples": 0}, "what it says of itself is damaged"),
        ({**FACTS.to_dict(), "sample_rate_hz": "8000"}, "what it says of itself is damaged"),
        ({**FACTS.to_dict(), "sources": []}, "what it says of itself is damaged"),
    ],
)
def test_damaged_facts_are_refused(tmp_path: Path, facts: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        ENGINES.build("onnxruntime", str(write_toy(tmp_path / "toy.onnx", facts)), "cpu", "fp32")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x07"])
def test_files_that_are_no_graphs_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "toy.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"toy.onnx (cannot be loaded; make it again|is no graph of polyres)"):
        ENGINES.build("onnxruntime", str(tmp_path / "toy.onnx"), "cpu", "fp32")


def test_facts_survive_their_text() -> None:
    assert read_facts(json.dumps(FACTS.to_dict()), Path("a")) == FACTS
