"""Decides whether an ONNX graph keeps its rows apart: from its inputs to its outputs the first axis is that of the
rows, and no operator mixes values along it.

Each tensor is either known by its number of axes, the first of which is that of the rows, or a constant with its shape.
Every operator that is not listed here is doubted.
"""

# Operators that treat each value, row or image by itself, with the fewest axes that their input needs for that.
KEEPS = {
    **dict.fromkeys(
        ["Abs", "Binarizer", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
         "HardSwish", "Identity", "IsInf", "IsNaN", "LabelEncoder", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu",
         "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu"],
        1,
    ),
    **dict.fromkeys(["ArrayFeatureExtractor", "Imputer", "Normalizer", "Scaler"], 2),
    **dict.fromkeys(["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN", "MaxPool"], 3),
}  # fmt: skip
BROADCASTS = set(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or PRelu Pow Sub Sum Where Xor".split()
)
# Operators of fitted trees, weights and vectors, with the axes of their outputs: a number, a label or a list of chances
# for each row.
PREDICTORS = {
    "LinearClassifier": (1, 2), "LinearRegressor": (2,), "SVMClassifier": (1, 2), "SVMRegressor": (2,),
    "TreeEnsembleClassifier": (1, 2), "TreeEnsembleRegressor": (2,), "ZipMap": (1,),
}  # fmt: skip
ALONG_AN_AXIS = {"Hardmax": -1, "LogSoftmax": -1, "Softmax": -1, "LayerNormalization": -1}
REDUCES = {
    "ArgMax",
    "ArgMin",
    *(f"Reduce{how}" for how in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")),
}
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def doubt(path):
    """Returns why the graph in this file may mix its rows; `None` when it does not."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph, constants, axes = model.graph, {}, {}
    opset = max((found.version for found in model.opset_import if found.domain in DOMAINS[:2]), default=1)
    if any(found.domain not in DOMAINS for found in model.opset_import) or graph.sparse_initializer:
        return "its ONNX graph has operators of its own"
    for tensor in graph.initializer:
        constants[tensor.name] = (tuple(tensor.dims), tensor)
    for value in graph.input:
        if value.name in constants:
            return f"the constant `{value.name}` of its ONNX graph can be fed"
        shape = value.type.tensor_type.shape.dim
        if not shape or shape[0].HasField("dim_value"):
            return f"the first axis of its input `{value.name}` is not dynamic"
        axes[value.name] = len(shape)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = (tuple(node.attribute[0].t.dims), node.attribute[0].t)
            continue
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        found = None if node.domain not in DOMAINS else after(node, attributes, constants, axes, opset)
        if found is None:
            return f"the operator {node.op_type} of its ONNX graph may mix rows"
        axes.update(zip(node.output, found))
    mixed = [value.name for value in graph.output if value.name not in axes]
    return f"the output `{mixed[0]}` of its ONNX graph does not depend on its rows" if mixed else None


def after(node, attributes, constants, axes, opset):
    """Returns the number of axes of each output of a node; `None` when the node may mix rows."""
    kind, names = node.op_type, [name for name in node.input if name]
    if not names or any(name not in axes and name not in constants for name in names):
        return None
    first, others = axes.get(names[0]), names[1:]
    shapes = [constants[name][0] for name in others if name in constants]
    are_constant = len(shapes) == len(others)
    if kind in BROADCASTS:
        return broadcast(names, constants, axes)
    if kind == "Gather" and first is None and others[0] in axes and attributes.get("axis", 0) == 0:
        # The node looks up rows of a constant table, such as embeddings.
        return [axes[others[0]] + len(constants[names[0]][0]) - 1]
    if first is None:
        return together(kind, attributes, names, axes)
    if kind == "Concat":
        return together(kind, attributes, names, axes)
    if not are_constant:
        return None
    if kind in KEEPS:
        is_trained = kind == "Dropout" and len(names) > 2
        return None if is_trained or len(node.output) > 1 or first < KEEPS[kind] else [first]
    if kind in PREDICTORS:
        return PREDICTORS[kind][: len(node.output)]
    if kind == "MatMul":
        return [first] if first >= 2 and len(shapes[0]) == 2 else None
    if kind == "Gemm":
        adds = shapes[1] if len(shapes) > 1 else ()
        return [2] if first == 2 and not attributes.get("transA") and (len(adds) < 2 or adds[0] == 1) else None
    if kind == "Conv":
        return [first] if first >= 3 else None
    if kind == "BatchNormalization":
        return [first] if first >= 2 and not attributes.get("training_mode") and len(node.output) == 1 else None
    if kind == "Flatten":
        return [2] if attributes.get("axis", 1) == 1 else None
    if kind == "Transpose":
        return [first] if attributes.get("perm", [-1])[0] == 0 else None
    if kind in ALONG_AN_AXIS:
        default = 1 if opset < 13 and kind != "LayerNormalization" else ALONG_AN_AXIS[kind]
        return [first] if is_inner([attributes.get("axis", default)], first) and len(node.output) == 1 else None
    if kind == "Gather":
        return [first + len(shapes[0]) - 1] if is_inner([attributes.get("axis", 0)], first) else None
    if kind in ("Squeeze", "Unsqueeze") or kind in REDUCES:
        return changed(kind, attributes, others, constants, first)
    if kind == "Reshape":
        shape = values(constants[others[0]])
        return [len(shape)] if shape[:1] == [0] and not attributes.get("allowzero") else None
    return None


def broadcast(names, constants, axes):
    """Returns the axes of a broadcast operator's output. An input with fewer axes is stretched along the first ones,
    among them that of the rows: only constants may be stretched so."""
    ranks = {axes[name] for name in names if name in axes}
    if len(ranks) != 1:
        return None
    (rank,) = ranks
    shapes = [constants[name][0] for name in names if name in constants]
    return [rank] if all(len(shape) < rank or len(shape) == rank and shape[0] == 1 for shape in shapes) else None


def together(kind, attributes, names, axes):
    ranks = {axes.get(name) for name in names}
    if kind != "Concat" or len(ranks) != 1 or None in ranks:
        return None
    (rank,) = ranks
    return [rank] if is_inner([attributes["axis"]], rank) else None


def changed(kind, attributes, others, constants, first):
    """Returns the axes of the output of an operator that removes axes, or adds some."""
    given = values(constants[others[0]]) if others else attributes.get("axes")
    if kind in ("ArgMax", "ArgMin"):
        given = [attributes.get("axis", 0)]
    if not given:
        return None
    if kind == "Unsqueeze":
        return [first + len(given)] if is_inner(given, first + len(given)) else None
    is_kept = kind in REDUCES and attributes.get("keepdims", 1)
    return [first if is_kept else first - len(given)] if is_inner(given, first) else None


def is_inner(given, rank):
    """Tells whether none of these axes is the first of `rank` axes."""
    return all(-rank <= axis < rank and axis % rank != 0 for axis in given)


def values(constant):
    from onnx import numpy_helper

    return numpy_helper.to_array(constant[1]).reshape(-1).tolist()
