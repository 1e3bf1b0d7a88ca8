"""Pieces of files for the corpus: arrays, archives, pickles, pictures; and what no reader should fall for."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from hostile import Canary

ROOT = Path(__file__).resolve().parents[1]

Seeds = Iterator[tuple[str, str, bytes]]
"""Target, name and content."""


def written(write: Callable[[Path], Any], name: str = "file") -> bytes:
    """What a function writes into a file."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def folder_of(write: Callable[[Path], Any]) -> dict[str, bytes]:
    """What a function writes into a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "made"
        write(folder)
        return {one.relative_to(folder).as_posix(): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def npy(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def npz(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, method)
    return buffer.getvalue()


def header(shape: str, descr: str = "'<i8'") -> bytes:
    """The beginning of an ``.npy`` file that claims this shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def torch_file(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (5, 4), form: str = "PNG", seed: int = 0, **options: Any) -> bytes:
    draws = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = draws.integers(0, 256, (size[1], size[0], channels) if channels > 1 else (size[1], size[0]), dtype=np.uint8)
    image = Image.fromarray(pixels, mode if mode in ("L", "RGB", "RGBA", "CMYK", "LA") else None).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG of such a size with next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def meta(content: Any) -> bytes:
    return npy(np.frombuffer(json.dumps(content).encode(), dtype=np.uint8))


def shapes_of_pickles(files: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The same content as current and as legacy files of torch."""
    for name, content in files.items():
        yield f"valid-{name}", torch_file(content)
        yield f"valid-{name}-legacy", torch_file(content, legacy=True)


def nasty_pickles() -> Iterator[tuple[str, bytes]]:
    """What no reader of ``torch.save`` should fall for."""
    yield "pickle-zip", torch_file([Canary(), Canary()])
    yield "pickle-legacy", torch_file([Canary(), Canary()], legacy=True)
    yield "pickle-bare", pickle.dumps(Canary(), 2)
    laughs: list[Any] = [0]
    for _ in range(60):
        laughs = [laughs, laughs]
    yield "bomb-laughs", torch_file(laughs)
    loop: list[Any] = []
    loop.append(loop)
    yield "bomb-loop", torch_file([loop, loop])
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    yield "bomb-deep", torch_file([deep, deep])
    yield "bomb-integer", torch_file({10**9000: [10**9000]})
    disguised = torch.zeros(2, 3, 4, 4)
    for name in ("detach", "float", "numpy", "__array__"):
        disguised.__dict__[name] = 5
    yield "bomb-attributes", torch_file([disguised, disguised])
    twice = b"".join(b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) for k in range(60))
    yield "bomb-hash", b"\x80\x02}K\x00q\x00" + twice + b"K\x01s."
    yield "bomb-bytearray", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (3 << 30).to_bytes(5, "little") + b"\x85R."
    hexed = b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R"
    for _ in range(30):
        hexed = b"c_codecs\nencode\n" + hexed + b"X\x03\x00\x00\x00hex\x86R"
    yield "bomb-hex", b"\x80\x02" + hexed + b"."
    yield "bomb-strides", torch_file([torch.zeros(1).expand(10**6, 3, 100, 100), torch.zeros(1).expand(10**6)])
    yield "bomb-storage", reclaimed(torch_file([torch.zeros(4, 3, 2, 2), torch.arange(4)]))


def reclaimed(content: bytes) -> bytes:
    """A file of torch in which a tensor's storage claims to be longer than its record."""
    source = zipfile.ZipFile(io.BytesIO(content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for one in source.infolist():
            part = source.read(one)
            if one.filename.endswith("/data/0"):
                part = part[:8]
            archive.writestr(zipfile.ZipInfo(one.filename), part)
        archive.writestr(zipfile.ZipInfo("archive/data/padding"), bytes(300))
    return buffer.getvalue()


def arrow(content: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, content.schema, **options) as stream:
        stream.write_table(content)
    return buffer.getvalue()
