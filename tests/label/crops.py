"""Ready crops in every kind of container, for the tests of `mien label`."""

import io
import tarfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def crop(number: int) -> bytes:
    """Return a PNG of a ready crop, a different one for each number."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (48, 48)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_crops(folder: Path, count: int) -> Path:
    """Write pictures `000.png` and so on to a new folder."""
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i:03d}.png").write_bytes(crop(i))
    return folder


def shard(count: int) -> bytes:
    """Return a WebDataset shard: pictures, each with a label that is not read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(count):
            for name, content in ((f"{i:03d}.png", crop(i)), (f"{i:03d}.cls", b"3")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_parquet(path: Path, columns: dict[str, Any], row_group_size: int = 100) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def read(out: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the sources of all rows, in order, and the lines of errors.parquet."""
    rows = [row for part in sorted(out.glob("faces/*.parquet")) for row in pq.ParquetFile(part).read(["source"]).to_pylist()]
    return [row["source"] for row in rows], pq.ParquetFile(out / "errors.parquet").read().to_pylist()


def write_video(path: Path, frames: int) -> Path:
    """Write a video of noise, 48 x 48 px."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
        for i in range(frames):
            image = np.random.default_rng(i).integers(0, 256, (48, 48, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path
