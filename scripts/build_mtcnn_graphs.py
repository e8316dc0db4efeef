"""Write the graphs of MTCNN's three networks, without weights, to src/mien/faces/mtcnn_{pnet,rnet,onet}.onnx.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016, figure 2, with the
channel counts of the weights in the `mtcnn` 1.0 wheel. Weights are declared as external data. The detector supplies them when
it loads a graph, so mien needs no `onnx` at run time. A browser gets a file of them (`packed_weights` in
`mien/faces/mtcnn.py`). Run from anywhere:

    python scripts/build_mtcnn_graphs.py

All three take the picture as float32 (1, 3, H, W), (value - 127.5) / 128. R-Net and O-Net also take boxes, float32 (N, 4) in px
of that picture. They sample the patches of all boxes at once with RoiAlign: bilinear, and 0 (grey) outside the picture.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto, helper

FOLDER = Path(__file__).parents[1] / "src" / "mien" / "faces"
OPSET, IR_VERSION = 16, 8  # RoiAlign's half-pixel mode came with opset 16
SAMPLES = 1
"""Points per side that RoiAlign reads for each pixel of a patch. The weights were trained with 1; 2 finds fewer faces."""


class Graph:
    """A network under construction: its nodes in order and its declared weights.

    Args:
        name: The network's name.
        start: The tensor the first layer reads.
    """

    def __init__(self, name: str, start: str) -> None:
        self.name = name
        self.last = start
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.offset = 0  # in the file of all weights, bytes

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Append a node and return its output's name."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        self.last = output
        return output

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Declare a float32 weight that is supplied at load and return its name."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        length = 4 * math.prod(shape)
        for key, value in (("location", f"mtcnn_{self.name}.bin"), ("offset", self.offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.offset += length
        self.weights.append(tensor)
        return name

    def conv(self, name: str, inputs: int, outputs: int, size: int) -> None:
        """Append a convolution with bias and its PReLU."""
        kernel = self.weight(f"{name}.weight", (outputs, inputs, size, size))
        bias = self.weight(f"{name}.bias", (outputs,))
        self.add("Conv", [self.last, kernel, bias], name)
        self.add("PRelu", [self.last, self.weight(f"{name}.slope", (outputs, 1, 1))], f"{name}.prelu")

    def pool(self, name: str, size: int) -> None:
        """Append max pooling of stride 2; the last window may reach beyond the edge."""
        self.add("MaxPool", [self.last], name, kernel_shape=[size, size], strides=[2, 2], ceil_mode=1)

    def dense(self, name: str, source: str, inputs: int, outputs: int) -> str:
        """Append a dense layer of `source` and return its output's name."""
        matrix = self.weight(f"{name}.weight", (inputs, outputs))
        return self.add("Gemm", [source, matrix, self.weight(f"{name}.bias", (outputs,))], name)

    def model(self, inputs: dict[str, list[int | str]], outputs: dict[str, list[int | str]]) -> onnx.ModelProto:
        """Return the finished model."""
        values = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, self.name, *values, initializer=self.weights)
        return helper.make_model(
            graph, producer_name="mien", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )


def pnet() -> onnx.ModelProto:
    """Return P-Net: a score and a box correction for every 12 x 12 window, stride 2."""
    graph = Graph("pnet", "picture")
    graph.conv("conv1", 3, 10, 3)
    graph.pool("pool1", 2)
    graph.conv("conv2", 10, 16, 3)
    graph.conv("conv3", 16, 32, 3)
    features = graph.last
    for name, channels in (("box", 4), ("logits", 2)):
        kernel = graph.weight(f"{name}.weight", (channels, 32, 1, 1))
        graph.add("Conv", [features, kernel, graph.weight(f"{name}.bias", (channels,))], name)
    return graph.model(
        {"picture": [1, 3, "height", "width"]}, {"box": [1, 4, "rows", "columns"], "logits": [1, 2, "rows", "columns"]}
    )


def refiner(name: str, size: int, convs: list[tuple[int, int, int]], hidden: int, heads: dict[str, int]) -> onnx.ModelProto:
    """Return R-Net or O-Net, which classifies and corrects each box.

    Args:
        name: The network's name.
        size: Side of a patch, px.
        convs: Channels, kernel size and size of the pooling that follows (0: none) of each convolution.
        hidden: Width of the dense layer.
        heads: Width of each output.
    """
    graph = Graph(name, "patches")
    index = graph.add("Shape", ["boxes"], "count", start=0, end=1)
    index = graph.add("ConstantOfShape", [index], "image", value=helper.make_tensor("zero", TensorProto.INT64, [1], [0]))
    graph.add(
        "RoiAlign", ["picture", "boxes", index], "patches",
        output_height=size, output_width=size, sampling_ratio=SAMPLES, coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    channels = 3
    for i, (outputs, kernel, pool) in enumerate(convs, 1):
        graph.conv(f"conv{i}", channels, outputs, kernel)
        channels, size = outputs, size - kernel + 1
        if pool:
            graph.pool(f"pool{i}", pool)
            size = -((pool - size) // 2) + 1
    graph.add("Transpose", [graph.last], "turned", perm=[0, 3, 2, 1])  # the weights flatten in (W, H, C) order
    graph.add("Flatten", [graph.last], "flat")
    graph.dense("dense", "flat", size * size * channels, hidden)
    features = graph.add("PRelu", ["dense", graph.weight("dense.slope", (hidden,))], "dense.prelu")
    for head, width in heads.items():
        graph.dense(head, features, hidden, width)
    inputs: dict[str, list[int | str]] = {"picture": [1, 3, "height", "width"], "boxes": ["n", 4]}
    return graph.model(inputs, {head: ["n", width] for head, width in heads.items()})


def rnet() -> onnx.ModelProto:
    """Return R-Net: a score and a box correction for each 24 x 24 patch."""
    return refiner("rnet", 24, [(28, 3, 3), (48, 3, 3), (64, 2, 0)], 128, {"box": 4, "logits": 2})


def onet() -> onnx.ModelProto:
    """Return O-Net: a score, a box correction and five landmarks for each 48 x 48 patch."""
    heads = {"box": 4, "landmarks": 10, "logits": 2}
    return refiner("onet", 48, [(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], 256, heads)


def main(folder: Path = FOLDER) -> None:
    """Write the three graphs to a folder."""
    for build in (pnet, rnet, onet):
        model = build()
        (folder / f"mtcnn_{model.graph.name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
