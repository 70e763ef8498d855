"""Tries ONNX graphs: those that keep their rows apart in company of others, and those that do not.

    python graphs.py DIRECTORY

DIRECTORY holds the programs of hosts. Prints each error.
"""

import os
import pathlib
import sys
import tempfile

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save

PROGRAM = {"__name__": "signalbox_onnx_graph"}
exec(compile(pathlib.Path(sys.argv[1], "onnx_graph.py").read_text(), "onnx_graph", "exec"), PROGRAM)
DRAW = np.random.default_rng(5)
ROWS = np.concatenate([DRAW.normal(size=(20, 4)), np.zeros((2, 4)), np.full((1, 4), np.nan), [[np.inf, 0, 0, 1], [1e30, 1, 1, 1]]]).astype("float32")
WEIGHTS = {
    "matrix": DRAW.normal(size=(4, 3)).astype("float32"), "vector": DRAW.normal(size=3).astype("float32"), "one": np.array([1]), "zero": np.array([0]),
    "row": np.ones((1, 4), "float32"), "column": np.ones((4, 1), "float32"), "cube": np.ones((2, 1, 4), "float32"), "flat": np.array([-1, 2]), "kept": np.array([0, 2, 2]),
    "indices": np.array([2, 0]), "four": np.ones(4, "float32"), "scalar": np.array(0.5, "float32"), "most": np.array(0.5, "float32"), "yes": np.array(True),
}  # fmt: skip


def node(kind, *names, **attributes):
    *inputs, output = names
    return helper.make_node(kind, inputs, [output], **attributes)


def ml(kind, *names, **attributes):
    return node(kind, *names, domain="ai.onnx.ml", **attributes)


GOOD = {
    "layers": [node("Gemm", "x", "matrix", "vector", "h"), node("Relu", "h", "r"), node("Softmax", "r", "y")],
    "product": [node("MatMul", "x", "matrix", "h"), node("Add", "h", "vector", "s"), node("Sigmoid", "s", "y")],
    "turned around": [node("Sub", "scalar", "x", "h"), node("Mul", "row", "h", "y")],
    "with itself": [node("Tanh", "x", "h"), node("Add", "x", "h", "s"), node("Where", "c", "s", "x", "y")],
    "sums": [node("ReduceSum", "x", "one", "s", keepdims=1), node("Div", "x", "s", "y")],
    "best": [node("ArgMax", "x", "y", axis=-1, keepdims=0)],
    "beside": [node("MatMul", "x", "matrix", "h"), node("Concat", "x", "h", "y", axis=1)],
    "columns": [node("Gather", "x", "indices", "g", axis=1), node("Unsqueeze", "g", "one", "u"), node("Squeeze", "u", "one", "y")],
    "shaped": [node("Reshape", "x", "kept", "h"), node("Transpose", "h", "t", perm=[0, 2, 1]), node("Flatten", "t", "y")],
    "normed": [node("LayerNormalization", "x", "four", "y")],
    "standardised": [node("BatchNormalization", "x", "four", "four", "four", "four", "y")],
    "scaled": [ml("Scaler", "x", "s", offset=[1.0] * 4, scale=[2.0] * 4), ml("Normalizer", "s", "y", norm="L2")],
    "regressor": [ml("LinearRegressor", "x", "y", coefficients=[1.0, 2.0, 3.0, 4.0], intercepts=[1.0])],
    "images": [node("Reshape", "x", "kept", "h"), node("GlobalAveragePool", "h", "p"), node("Exp", "p", "y")],
}
GOOD["with itself"].insert(0, node("Greater", "x", "scalar", "c"))
BAD = {
    "mean of all": [node("ReduceMean", "x", "zero", "m"), node("Sub", "x", "m", "y")],
    "mean of everything": [node("ReduceMean", "x", "m"), node("Sub", "x", "m", "y")],
    "softmax down": [node("Softmax", "x", "y", axis=0)],
    "softmax down, counted from behind": [node("Softmax", "x", "y", axis=-2)],
    "similarity": [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x", "t", "y")],
    "gram": [node("Gemm", "x", "x", "y", transA=1)],
    "below": [node("Concat", "x", "row", "y", axis=0)],
    "twice": [node("Concat", "x", "x", "y", axis=0)],
    "running sum": [node("CumSum", "x", "zero", "y")],
    "best of all": [node("ArgMax", "x", "y", axis=0)],
    "best by default": [node("ArgMax", "x", "y")],
    "reshaped": [node("Reshape", "x", "flat", "y")],
    "trained": [helper.make_node("BatchNormalization", ["x", "four", "four", "four", "four"], ["y", "m", "v"], training_mode=1)],
    "dropped": [node("Dropout", "x", "most", "yes", "y")],
    "first row": [node("Gather", "x", "zero", "g", axis=0), node("Sub", "x", "g", "y")],
    "stretched": [node("Add", "x", "cube", "y")],
    "sorted": [helper.make_node("TopK", ["x", "one"], ["y", "i"], axis=0)],
    "drawn": [node("RandomNormalLike", "x", "r"), node("Add", "x", "r", "y")],
    "counted": [node("Shape", "x", "s"), node("Cast", "s", "f", to=TensorProto.FLOAT), node("ReduceMax", "f", "m"), node("Add", "x", "m", "y")],
    "of no row": [node("Identity", "row", "y")],
    "misaligned": [node("ReduceSum", "x", "one", "s", keepdims=0), node("Add", "x", "s", "y")],
}


def write(nodes, path, first="n", opset=18):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, 4])]
    kind = TensorProto.INT64 if nodes[-1].op_type == "ArgMax" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "tried", inputs, [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items() if any(name in node.input for node in nodes)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    save(model, path)


def differences(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(rows):
        return session.run(None, {"x": rows})[0]

    alone = [answer(ROWS[[row]]) for row in range(len(ROWS))]
    for order in (np.arange(len(ROWS)), np.argsort(ROWS[:, 0]), DRAW.permutation(len(ROWS)), DRAW.permutation(len(ROWS))[:5]):
        together = answer(ROWS[order])
        for row, found in zip(order, together, strict=True):
            if not np.allclose(found, alone[row][0], rtol=1e-4, atol=1e-5, equal_nan=True):
                yield f"row {ROWS[row]}: alone {alone[row][0]}, together {found}"
                return


def main():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "model.onnx")
        for name, nodes in GOOD.items():
            write(nodes, path)
            for wrong in [PROGRAM["doubt"](path), *differences(path)]:
                if wrong:
                    print(f"{name}: {wrong}")
        for name, nodes in BAD.items():
            write(nodes, path)
            if PROGRAM["doubt"](path) is None:
                print(f"{name} is not doubted")
        write(GOOD["layers"], path, first=7)
        if "not dynamic" not in (PROGRAM["doubt"](path) or ""):
            print("a fixed number of rows is not doubted")
        write([node("Softmax", "x", "y", axis=0)], path, opset=11)
        if PROGRAM["doubt"](path) is None:
            print("an old softmax over everything is not doubted")


if __name__ == "__main__":
    main()
