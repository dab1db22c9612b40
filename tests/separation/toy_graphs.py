"""A graph that does what can be seen at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from polyres.separation.engines import GRAPH_KEY, GraphFacts

FACTS = GraphFacts("toy", ("left", "half"), 8000, 2, 1000, (512,), (128,), "MIT", "fp32", "abc", "", 0.0)

GAINS = np.float32([1, 0.5]).reshape(1, 2, 1, 1)


def write_toy(path: Path, facts: object = FACTS.to_dict()) -> Path:
    """A graph that gives the mixture once as it is and once halved."""
    info = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("mix", [1, 2, 1000]), ("stems", [1, 2, 2, 1000]))
    ]
    gains = onnx.numpy_helper.from_array(GAINS, "gains")
    axes = onnx.numpy_helper.from_array(np.int64([1]), "axes")
    nodes = [
        onnx.helper.make_node("Unsqueeze", ["mix", "axes"], ["one"]),
        onnx.helper.make_node("Mul", ["one", "gains"], ["stems"]),
    ]
    body = onnx.helper.make_graph(nodes, "toy", info[:1], info[1:], [gains, axes])
    graph = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    if facts is not None:
        onnx.helper.set_model_props(graph, {GRAPH_KEY: json.dumps(facts)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph.SerializeToString())
    return path
