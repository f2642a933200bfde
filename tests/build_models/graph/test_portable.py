from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import random_feed, run_model
from build_models.graph.portable import check_portable, make_portable, strip

pytestmark = pytest.mark.build

SCRIPT = """
import hashlib, sys
import onnx
from build_models.graph.portable import make_portable
model = onnx.load_model_from_string(sys.stdin.buffer.read())
print(hashlib.sha256(make_portable(model, ["raw"])[0].SerializeToString(deterministic=True)).hexdigest())
"""


def small_model() -> onnx.ModelProto:
    """Convolution, batch normalisation, a node without effect, a constant sum; traces of a build on everything."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((4, 3, 3, 3), dtype=np.float32),
        "gamma": rng.random(4, dtype=np.float32),
        "beta": rng.random(4, dtype=np.float32),
        "mean": rng.random(4, dtype=np.float32),
        "var": rng.random(4, dtype=np.float32) + 1,
        "one": np.ones(1, np.float32),
        "two": np.full(1, 2, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], name="conv", doc_string="/home/somebody/model.py"),
        helper.make_node("BatchNormalization", ["conv", "gamma", "beta", "mean", "var"], ["norm"]),
        helper.make_node("Identity", ["norm"], ["same"]),
        helper.make_node("Add", ["one", "two"], ["three"]),
        helper.make_node("Mul", ["same", "three"], ["raw"]),
        helper.make_node("Relu", ["raw"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph of somebody",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name = "an exporter"
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/somebody/model.py")
    helper.set_model_props(model, {"built_on": "/home/somebody"})
    return model


def test_constants_and_normalisations_fold_and_the_numbers_stay() -> None:
    model = small_model()
    feed = random_feed(model, 0)

    portable, report = make_portable(model)

    assert [node.op_type for node in portable.graph.node] == ["Conv", "Relu"]
    assert (report.nodes_before, report.nodes_after) == (6, 2)
    assert {"fold_batch_norm": 1, "fold_constants": 1, "fold_scale": 1}.items() <= report.rewrites.items()
    np.testing.assert_allclose(run_model(portable, feed)["y"], run_model(model, feed)["y"], rtol=1e-5, atol=1e-5)


def test_tensors_to_keep_survive_under_their_names() -> None:
    kept, _ = make_portable(small_model(), keep=["raw"])

    assert "raw" in {name for node in kept.graph.node for name in node.output}
    assert [value.name for value in kept.graph.output] == ["y"]


def test_nothing_of_the_build_is_left() -> None:
    portable, _ = make_portable(small_model())
    data = portable.SerializeToString()

    assert b"somebody" not in data
    assert b"an exporter" not in data
    assert b"somebody" in small_model().SerializeToString()  # the check can fail
    assert portable.ir_version == 10
    assert [(entry.domain, entry.version) for entry in portable.opset_import] == [("", 17)]


def test_every_node_has_a_name_of_its_own() -> None:
    model = small_model()
    for node in model.graph.node:
        node.name = "same for all"

    names = [node.name for node in strip(model).graph.node]

    assert len(set(names)) == len(names) == 6


def test_the_same_model_gives_the_same_bytes_in_every_process() -> None:
    model = small_model().SerializeToString()
    repo = Path(__file__).parents[3]

    def digest_in_a_new_process() -> str:
        result = subprocess.run([sys.executable, "-c", SCRIPT], input=model, cwd=repo, capture_output=True, check=True)
        return bytes(result.stdout).decode().strip()

    here, _ = make_portable(small_model(), ["raw"])
    expected = hashlib.sha256(here.SerializeToString(deterministic=True)).hexdigest()

    assert {digest_in_a_new_process(), digest_in_a_new_process()} == {expected}


def test_foreign_operators_are_refused() -> None:
    model = small_model()
    model.graph.node[5].domain = "com.microsoft"

    with pytest.raises(BuildError, match=r"official ONNX operators only, found com\.microsoft\.Relu"):
        check_portable(model)


@pytest.mark.parametrize(("ir_version", "opset"), [(11, 17), (10, 22), (10, 12)])
def test_versions_that_the_oldest_runtime_refuses_are_refused(ir_version: int, opset: int) -> None:
    model = small_model()
    model.ir_version, model.opset_import[0].version = ir_version, opset

    with pytest.raises(BuildError, match=f"found IR {ir_version} and opset {opset}"):
        check_portable(model)


def test_a_graph_that_is_not_well_formed_is_refused() -> None:
    model = small_model()
    model.graph.node[5].input[0] = "nowhere"

    with pytest.raises(BuildError, match="the ONNX checker refuses the graph"):
        check_portable(model)
