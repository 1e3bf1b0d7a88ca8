"""The corpus that fuzzing starts from, made anew of synthetic data: valid files, and some that are made to do harm.

    python stress/fuzz_corpus.py

Files of ``tests/corpus`` whose names begin with ``valid-``, ``pickle-`` or ``bomb-`` are written by this script; others are findings,
named by the class of defect, and stay.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from hostile import CORPUS, Canary, keep, pack
from hostile_targets import data

OURS = ("valid-", "pickle-", "bomb-")

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


def selections() -> Seeds:
    images = data()
    told = {"method": "random", "dataset": images.name, "fingerprint": images.fingerprint, "seed": 0, "ratio": 0.2}
    indices, counts = npy(np.arange(6)), npy(np.array([2, 2, 2]))
    yield "selection", "valid-plain", npz(indices=indices, counts=counts, meta=meta(told))
    yield "selection", "valid-weights", npz(indices=indices, counts=counts, weights=npy(np.ones(6, np.float32)), meta=meta({}))
    yield "selection", "valid-deflated", npz(zipfile.ZIP_DEFLATED, indices=indices, counts=counts, meta=meta(told))
    objects = npy(np.array([Canary()], dtype=object), allow_pickle=True)
    yield "selection", "pickle-indices", npz(indices=objects, counts=counts, meta=meta({}))
    yield "selection", "pickle-meta", npz(indices=indices, counts=counts, meta=objects)
    zeros = header(f"({40_000_000},)") + bytes(320_000_000)
    yield "selection", "bomb-deflate", npz(zipfile.ZIP_BZIP2, indices=zeros, counts=counts, meta=meta({}))
    yield "selection", "bomb-claim", npz(indices=header(f"({10**12},)"), counts=counts, meta=meta({}))
    yield "selection", "bomb-sizes", npz(indices=indices, counts=npy(np.array([2**62] * 4 + [6])), meta=meta({}))
    order, sizes = npy(np.arange(9)), npy(np.array([3, 3, 3]))
    yield "ranking", "valid-plain", npz(order=order, sizes=sizes, meta=meta({"method": "herding", "nested": True, "provenance": {}}))
    yield "ranking", "valid-weights", npz(order=order, sizes=sizes, weights=npy(np.ones(9)), meta=meta({"method": "x"}))
    yield "ranking", "pickle-order", npz(order=objects, sizes=sizes, meta=meta({}))
    yield "ranking", "bomb-sizes", npz(order=order, sizes=npy(np.array([2**62] * 4 + [9])), meta=meta({}))


def grids() -> Seeds:
    for file in sorted((ROOT / "dqas_plugin" / "bench" / "grids").glob("*.toml")):
        yield "grid", f"valid-{file.stem}", file.read_bytes()
    yield "grid", "valid-all-keys", (
        b'title = "all"\n[defaults]\nmethod = ["graphcut", "herding"]\nadaptive = true\ngoal = "worst"\nproxy = "train"\n[[grid]]\n'
        b'dataset = "shapes"\ndataset-option = { modes = 30, size = 8 }\nratio = [0.05, 0.1]\nseeds = 2\nlr = 0.1\nbatch = 64\n'
        b'method-option = { compat = "paper" }\nmax-memory = "1GB"\nallocator = ["adaptive", "paper"]\nallocator-option = { iterations = 5 }\n'
        b'refiner = "error-reduction"\nrefiner-option = { rounds = 1 }\nscorer = "ridge"\n[[grid]]\ndataset = "digits"\naipc = [1, 5]\n'
        b'epochs = 3\nbins-on = "original"\nno-patches = true\ndrop-rate = 0.5\npatch-size = 4\npatch-scores = "saliency"\n'
        b'rebuild = "harmonic"\nmodel = "convnet3"\nrecipe = "fast"\nprior = "empirical"\nrefine-share = 0.2\nfeatures = "proxy"\n'
        b'[[grid]]\ndataset = "folder:x"\ntest-from = "digits"\niterations = 10\n'
    )
    yield "grid", "bomb-nested", b"title = " + b"[" * 5000
    yield "grid", "bomb-dotted", b"title = [{" + b"a." * 3000 + b"a = 1}]"
    yield "grid", "bomb-digits", b"[[grid]]\nseeds = 0x" + b"f" * 6000


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


def checkpoints() -> Seeds:
    from dqas_adapters.deepcore.checkpoints import labels_digest

    recorder = SimpleNamespace(train_loss=[1.0, 0.5], train_acc=[50.0, 60.0], test_loss=[1.0], test_acc=[40.0])
    whole = {
        "exp": 0,
        "epoch": 200,
        "state_dict": OrderedDict(weight=torch.zeros(2, 2)),
        "best_acc1": 91.2,
        "rec": recorder,
        "subset": {"indices": np.arange(6), "weights": np.ones(6), "dqas": json.dumps({"labels": labels_digest(data().labels.numpy())})},
        "sel_args": {"epochs": 200, "balance": True, "selection_method": "LeastConfidence"},
    }
    plain = {"subset": {"indices": np.arange(6)}, "sel_args": {"balance": True}}
    for name, content in shapes_of_pickles({"whole": whole, "selection": plain}):
        yield "deepcore", name, content
    for name, content in nasty_pickles():
        if name.startswith("pickle") or name in ("bomb-integer", "bomb-attributes"):
            yield "deepcore", name, content
    yield "deepcore", "bomb-keys", torch_file({"subset": {"indices": [0, 1, 2]}, "sel_args": {10**9000: 10**9000, "a": 10**9000}})
    laughs: list[Any] = [0]
    for _ in range(60):
        laughs = [laughs, laughs]
    yield "deepcore", "bomb-laughing-indices", torch_file({"subset": {"indices": laughs}})


def distilled() -> Seeds:
    draws = torch.Generator().manual_seed(0)
    images, labels = torch.rand(4, 3, 8, 8, generator=draws), torch.tensor([0, 0, 1, 1])
    normal = (images - 0.45) / 0.2
    pairs = {"data": [[normal, labels], [normal, labels]], "accs_all_exps": {"ConvNet": [np.float64(0.25)]}}
    for name, content in shapes_of_pickles({"two-runs": pairs}):
        yield "dc", name, content
    for name, content in shapes_of_pickles({"plain": [images, labels]}):
        yield "dream", name, pack({"data.pt": content, "args.txt": json.dumps({"factor": 2, "decode_type": "multi"}).encode()})
    one = torch_file([torch.rand(2, 1, 8, 8), torch.tensor([0, 1])])
    yield "dream", "bomb-factor", pack({"data.pt": one, "args.txt": b'{"factor": 999999999999999999999}'})
    yield "dream", "bomb-arguments", pack({"data.pt": one, "args.txt": b"[" * 5_000})
    yield "dream", "bomb-null", pack({"data.pt": one, "args.txt -> /dev/zero": b""})
    for name, content in shapes_of_pickles({"images": images}):
        parts = {"images_best.pt": content, "labels_best.pt": torch_file(labels)}
        yield "mtt", name, pack(parts)
    soft = torch.eye(2).repeat_interleave(2, 0) * 3
    yield "mtt", "valid-soft", pack(
        {"images_best.pt": torch_file(images), "labels_best.pt": torch_file(soft), "lr_best.pt": torch_file(torch.tensor(0.01))}
    )
    yield "mtt", "bomb-rate", pack(
        {"images_best.pt": torch_file(images), "labels_best.pt": torch_file(labels), "lr_best.pt": torch_file(10**400)}
    )
    for name, content in nasty_pickles():
        yield "dc", name, content
        if name in ("pickle-zip", "pickle-legacy", "bomb-laughs"):
            yield "dream", name, pack({"data.pt": content})
            yield "mtt", name, pack({"images_best.pt": torch_file(images), "labels_best.pt": content})


def bins() -> Seeds:
    yield "dq", "valid-plain", npy(np.arange(15))
    yield "dq", "valid-float", npy(np.arange(15.0))
    yield "dq", "pickle-object", npy(np.array([Canary()], dtype=object), allow_pickle=True)
    yield "dq", "pickle-bare", pickle.dumps(Canary())
    yield "dq", "bomb-claim", header(f"({10**12},)") + bytes(80)
    yield "dq", "bomb-nested", header("(" * 3000 + ")" * 3000)
    yield "dq", "bomb-python-2", header("(2L,)") + bytes(16)
    yield "dq", "bomb-escape", header("(2,)", "'<i8\\d'") + bytes(16)
    parts = {f"select_indices_CIFAR10_exp{k}.npy": npy(np.arange(30).reshape(10, 3)[k::2].ravel()) for k in range(2)}
    yield "dq-bins", "valid-two", pack(parts)
    yield "dq-bins", "valid-described", pack({**parts, "dqas.json": json.dumps({"files": {"x": "y"}, "dataset": "z"}).encode()})
    first, second = parts
    yield "dq-bins", "bomb-links", pack({f"{first} -> /dev/zero": b"", second: parts[second]})
    yield "dq-bins", "bomb-pipe", pack({f"{first} |": b"", second: parts[second]})
    yield "dq-bins", "bomb-json", pack({**parts, "dqas.json": b"[" * 5_000})
    yield "dq-bins", "pickle-object", pack({first: npy(np.array([Canary()], dtype=object), allow_pickle=True), second: parts[second]})


def pictures() -> Seeds:
    kinds = {
        "grey": picture("L"),
        "rgb": picture("RGB"),
        "rgba": picture("RGBA"),
        "palette": picture("P"),
        "bilevel": picture("1"),
        "jpeg": picture("RGB", form="JPEG", quality=40),
        "cmyk": picture("CMYK", form="JPEG", quality=40),
        "gif": picture("P", form="GIF"),
        "bmp": picture("RGB", form="BMP"),
        "webp": picture("RGB", form="WEBP"),
        "tiff": picture("RGB", form="TIFF"),
        "tiff-deflate": picture("RGB", form="TIFF", compression="tiff_deflate"),
        "tiff-lzw": picture("L", form="TIFF", compression="tiff_lzw"),
        "ppm": picture("RGB", form="PPM"),
        "ppm-plain": b"P3 2 1 255 1 2 3 4 5 6",
    }
    for name, content in kinds.items():
        yield "image", f"valid-{name}", content
    yield "image", "bomb-png-large", png_claiming(9000, 9000)
    yield "image", "bomb-png-enormous", png_claiming(2**31 - 1, 2**31 - 1)
    yield "image", "bomb-png-deep", png_claiming(4, 4, 16)
    yield "image", "bomb-gif", b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(6) + b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00;"
    yield "image", "bomb-ppm", b"P6 99999 99999 255\n"
    yield "image", "bomb-eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\nshowpage\n"
    yield "image", "bomb-truncated-jpeg", kinds["jpeg"][: len(kinds["jpeg"]) * 2 // 3]
    classes = {f"{split}/{name}/{k}.png": picture("RGB", (3, 2), seed=k) for split in ("train", "test") for name in "ab" for k in range(2)}
    yield "folder", "valid-splits", pack(classes)
    yield "folder", "valid-classes", pack({f"{name}/{k}.png": picture("L", (3, 2), seed=k) for name in "ab" for k in range(3)})
    yield "folder", "bomb-pipe", pack({**classes, "train/a/9.png |": b""})
    yield "folder", "bomb-links", pack({**classes, "train/a/9.png -> /dev/zero": b"", "train/c -> ..": b"", "test/c -> ..": b""})
    yield "folder", "bomb-names", pack({f"\udcff{name}\x1b[31m/{k}.png": picture("L", (3, 2)) for name in "ab" for k in range(2)})
    yield "folder", "bomb-sizes", pack({**classes, "train/a/9.png": png_claiming(9000, 9000)})
    numbered = {f"new{c:03d}/class{c:03d}_id{k:03d}.jpg": picture("RGB", (4, 4), "JPEG", k, quality=30) for c in range(2) for k in range(2)}
    yield "images", "valid-sre2l", pack(numbered)
    yield "images", "valid-rded", pack({f"{c:05d}/class{c:05d}_id{k:05d}.jpg": picture("RGB", (4, 4), "JPEG", k) for c in range(2) for k in range(1)})
    yield "images", "bomb-pipe", pack({**numbered, "new000/x.jpg |": b""})
    yield "images", "bomb-digits", pack({f"{'9' * 250}{c}/a.png": picture("L", (3, 2)) for c in range(2)})
    indexed = {f"{k % 2}/{k}.png": picture("RGB", (4, 4), seed=k) for k in range(5)}
    yield "dq-images", "valid-five", pack(indexed)
    yield "dq-images", "bomb-gap", pack({**indexed, "1/999999999999999999.png": picture("RGB", (4, 4))})


def tables() -> Seeds:
    def stored(rows: int, **options: Any) -> bytes:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        names = {"info": {"features": {"label": {"names": ["left", "right"], "_type": "ClassLabel"}}}}
        content = pa.table(
            {
                "image": pa.array([{"bytes": picture("RGB", (4, 3), seed=k), "path": None} for k in range(rows)], kind),
                "label": pa.array([k % 2 for k in range(rows)], pa.int64()),
            }
        ).replace_schema_metadata({"huggingface": json.dumps(names)})
        return written(lambda path: pq.write_table(content, path, **options))

    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    yield "parquet", "valid-plain", stored(4, **plain)
    yield "parquet", "valid-zstd", stored(4, compression="zstd")
    yield "parquets", "valid-splits", pack({"train-00000-of-00001.parquet": stored(4, **plain), "test/0.parquet": stored(2, **plain)})
    yield "parquet", "valid-soft", soft_images()["train-00000-of-00001.parquet"]
    yield "parquets", "valid-patches", pack(patches())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    many = 50_000_000
    labels = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int32)), pa.array([0], pa.int64())).cast(pa.int64())
    image = pa.array([{"bytes": b"x", "path": None}] * 1000, kind)
    batch = pa.table({"image": image, "label": labels})

    def claim(path: Path) -> None:
        with pq.ParquetWriter(path, batch.schema, compression="zstd") as writer:
            block = pa.concat_tables([batch] * 5000).combine_chunks()
            for _ in range(many // len(block)):
                writer.write_table(block, row_group_size=len(block))

    yield "parquet", "bomb-rows", written(claim)
    doubled = pa.Table.from_arrays([pa.array([0, 1]), pa.array([0, 1]), image[:2]], names=["label", "label", "image"])
    yield "parquet", "bomb-columns", written(lambda path: pq.write_table(doubled, path))
    surrogate = pa.table({"image": image[:4], "label": pa.array([0, 1, 0, 1])}).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["\\ud800", "b"]}}}}', "dqas": "[" * 5_000}
    )
    yield "parquet", "bomb-metadata", written(lambda path: pq.write_table(surrogate, path))


def soft_images() -> dict[str, bytes]:
    from dqas_plugin.quantization.patch_files import write_images

    from dqas_plugin.data import ImageDataset

    images = torch.arange(4 * 3 * 16).remainder(251).to(torch.uint8).reshape(4, 3, 4, 4)
    soft = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).repeat(2, 1)
    held = ImageDataset(images, torch.arange(4) % 2, ("left", "right"), "soft/train", targets=soft)
    return folder_of(lambda folder: write_images(folder, held))


def patches() -> dict[str, bytes]:
    from dqas_plugin.data import ImageDataset
    from dqas_plugin.quantization.patch_files import write_images, write_patches
    from dqas_plugin.quantization.patches import PatchedImages, kept

    images = torch.arange(4 * 3 * 64).remainder(251).to(torch.uint8).reshape(4, 3, 8, 8)
    held = ImageDataset(images, torch.arange(4) % 2, ("left", "right"), "small/train", mirror=False)
    scores = torch.arange(16.0).reshape(4, 4)
    patched = PatchedImages.of(held.images, kept(scores, 0.25))

    def write(folder: Path) -> None:
        write_patches(folder, held, patched, drop_rate=0.25)
        write_images(folder, held, split="test")

    return folder_of(write)


def arrow(content: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, content.schema, **options) as stream:
        stream.write_table(content)
    return buffer.getvalue()


def saved() -> Seeds:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def rows(count: int) -> pa.Table:
        images = pa.array([{"bytes": picture("RGB", (4, 3), seed=k), "path": None} for k in range(count)], kind)
        return pa.table({"image": images, "label": pa.array([k % 2 for k in range(count)], pa.int64())})

    def split(*files: bytes, **features: Any) -> dict[str, bytes]:
        names = [f"data-{k:05d}.arrow" for k in range(len(files))]
        usual = {"image": {"_type": "Image"}, "label": {"names": ["left", "right"], "_type": "ClassLabel"}}
        return {
            **dict(zip(names, files, strict=True)),
            "state.json": json.dumps({"_data_files": [{"filename": one} for one in names], "_split": "train"}).encode(),
            "dataset_info.json": json.dumps({"features": usual | features}).encode(),
        }

    one = split(arrow(rows(2)), arrow(rows(2)))
    yield "hf", "valid-single", pack(one)
    both = {"dataset_dict.json": b'{"splits": ["train", "test"]}', "dqas.json": b'{"mirror": false}'}
    both |= {f"{part}/{name}": content for part in ("train", "test") for name, content in split(arrow(rows(2))).items()}
    yield "hf", "valid-both", pack(both)
    soft = rows(4).append_column("targets", pa.array([[0.5, 0.5]] * 4, pa.list_(pa.float32(), 2)))
    yield "hf", "valid-soft", pack(split(arrow(soft), targets={"_type": "Sequence"}))
    other = pa.table({"image": pa.array([1, 2]), "label": pa.array(["a", "b"])})
    yield "hf", "bomb-other-types", pack(split(arrow(rows(2)), arrow(other)))
    for name, target in (("null", "a\\u0000b"), ("surrogate", "\\ud800"), ("outside", "../../../etc/passwd"), ("long", "x" * 5000)):
        state = f'{{"_data_files": [{{"filename": "{target}"}}]}}'.encode()
        yield "hf", f"bomb-{name}", pack({**one, "state.json": state})
    yield "hf", "bomb-split", pack({**both, "dataset_dict.json": b'{"splits": ["train\\u0000", "a"]}'})
    yield "hf", "bomb-split-outside", pack({**both, "dataset_dict.json": b'{"splits": [".."]}'})
    yield "hf", "bomb-names", pack({**one, "dataset_info.json": b'{"features": {"label": {"_type": "ClassLabel", "names": ["\\ud800", "\\u001b[31m"]}}}'})
    yield "hf", "bomb-zero", pack({**both, "train/state.json -> /dev/zero": b""})
    yield "hf", "bomb-pipe", pack({**both, "train/state.json |": b""})
    yield "hf", "bomb-compressed", pack(split(arrow(pa.table({"image": pa.nulls(2_000_000, kind), "label": pa.array(np.zeros(2_000_000, np.int64))}), options=pa.ipc.IpcWriteOptions(compression="zstd"))))


def roots() -> Seeds:
    def idx(values: np.ndarray) -> bytes:
        return struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()

    images, labels = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8), np.array([0, 1], np.uint8)
    labels10 = np.arange(10, dtype=np.uint8)
    images10 = np.zeros((10, 4, 4), np.uint8)
    parts = {"train-images-idx3-ubyte": idx(images10), "train-labels-idx1-ubyte": idx(labels10)}
    parts |= {"t10k-images-idx3-ubyte.gz": gzip.compress(idx(images10), mtime=0), "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels10), mtime=0)}
    yield "fashion-mnist", "valid-small", pack(parts)
    yield "fashion-mnist", "bomb-two", pack({**parts, "train-images-idx3-ubyte": idx(images), "train-labels-idx1-ubyte": idx(labels)})
    large = struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    yield "fashion-mnist", "bomb-claim", pack({**parts, "train-images-idx3-ubyte": large})
    yield "fashion-mnist", "bomb-empty", pack({**parts, "train-images-idx3-ubyte": struct.pack(">4I", 0x0803, 10, 0, 28), "t10k-images-idx3-ubyte.gz": gzip.compress(struct.pack(">4I", 0x0803, 10, 0, 28), mtime=0)})
    yield "fashion-mnist", "bomb-gzip", pack({**parts, "t10k-images-idx3-ubyte.gz": gzip.compress(struct.pack(">4I", 0x0803, 10, 2000, 500) + bytes(10**7 + 9), mtime=0)})
    yield "fashion-mnist", "bomb-pipe", pack({**parts, "train-images-idx3-ubyte |": b""})
    batch = pickle.dumps(Canary())
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch", "batches.meta"]
    yield "cifar10", "pickle-batches", pack({f"cifar-10-batches-py/{one}": batch for one in names})
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        entry = tarfile.TarInfo("../../outside")
        archive.addfile(entry, io.BytesIO(b""))
    yield "cifar10", "bomb-archive", pack({"cifar-10-python.tar.gz": tar.getvalue()})
    yield "cifar100", "pickle-batches", pack({f"cifar-100-python/{one}": batch for one in ("train", "test", "meta")})
    base = "tiny-imagenet-200"
    yield "tiny-imagenet", "valid-skeleton", b""
    yield "tiny-imagenet", "valid-other-image", pack({f"{base}/val/images/val_3.JPEG": picture("L", (1, 1)), f"{base}/words.txt": b"n0\tx\n"})
    yield "tiny-imagenet", "bomb-annotations", pack({f"{base}/val/val_annotations.txt": b"../../x.JPEG\tn00000001\n\xff\tn0\n"})
    yield "tiny-imagenet", "bomb-stray", pack({f"{base}/train/stray.JPEG": picture("L", (1, 1))})
    yield "tiny-imagenet", "bomb-zero", pack({f"{base}/val/val_annotations.txt -> /dev/zero": b""})
    yield "tiny-imagenet", "bomb-pipe", pack({f"{base}/val/val_annotations.txt |": b""})


def autoencoders() -> Seeds:
    from dqas_plugin.quantization.mae import MaeShape, MaskedAutoencoder
    from dqas_plugin.quantization.mae_weights import save_mae

    shape = MaeShape((1, 4, 4), 2, 8, 1, 2, 8, 1, 2, 1.0)
    torch.manual_seed(0)
    mae = MaskedAutoencoder(shape)
    ours = written(lambda path: save_mae(mae, path), "mae.pth")
    yield "mae", "valid-ours", ours
    content = torch.load(io.BytesIO(ours), weights_only=True)
    about = content["dqas"]

    def changed(**parts: Any) -> bytes:
        return torch_file({"model": content["model"], "dqas": {**about, "shape": {**about["shape"], **parts}}})

    yield "mae", "bomb-depth", changed(depth=10**9)
    yield "mae", "bomb-width", changed(width=2**40)
    yield "mae", "bomb-heads", changed(heads=0)
    yield "mae", "bomb-patch", changed(patch=0)
    yield "mae", "bomb-types", changed(depth="x", image=[None, {}, 3])
    yield "mae", "bomb-mean", torch_file({"model": content["model"], "dqas": {"shape": about["shape"]}})
    yield "mae", "bomb-keys", torch_file({"model": {1: torch.zeros(1), "a": torch.zeros(1)}, "dqas": about})
    told = {
        "patch_embed.proj.weight": torch.zeros(768, 3, 0, 2),
        "pos_embed": torch.zeros(1, 2, 0),
        "blocks.0.mlp.fc1.weight": torch.zeros(0, 768),
        "decoder_embed.weight": torch.zeros(16, 0),
        "blocks.999999999.x": torch.zeros(1),
    }
    yield "mae", "bomb-release", torch_file({"model": told})
    for name, nasty in nasty_pickles():
        yield "mae", name, nasty
        yield "weights", name, nasty
    yield "weights", "valid-small", torch_file({"model": {"conv1.weight": torch.zeros(1)}})


def stores() -> Seeds:
    from evidence_problem import toy_cells, usual

    rows = {}
    for cell in toy_cells(ratios=[0.1], seeds=2):
        rows[f"{cell.key}/config"] = json.dumps(cell.configuration()).encode()
        rows[f"{cell.key}/result"] = json.dumps(usual(cell)).encode()
    yield "results", "valid-cells", pack(rows)
    first = next(iter(rows)).partition("/")[0]
    for name, config, result in (
        ("not-json", b"{", b"["),
        ("other-types", b"[]", b"3"),
        ("empty", b"{}", b"{}"),
        ("deep", b"[" * 5_000, b"[" * 5_000),
        ("numbers", rows[f"{first}/config"], b'{"accuracy": {"mean": 1e999, "worst": -1e999, "natural": NaN, "classes": [1e999, null]}, "counts": [99999999999999999999, -1], "seconds": {"x": "y"}}'),
    ):
        yield "results", f"bomb-{name}", pack({**rows, f"{first}/config": config, f"{first}/result": result})
    yield "results", "bomb-no-database", pack({"results.sqlite": b"SQLite format 3\x00" + bytes(84)})


def checkouts() -> Seeds:
    standin = ROOT / "tests" / "deepcore_standin" / "deepcore" / "methods"
    files = {f"deepcore/methods/{one.name}": one.read_bytes() for one in sorted(standin.glob("*.py"))}
    if sum(map(len, files.values())) < 20_000:
        yield "checkout", "valid-stand-in", pack(files)
    yield "checkout", "bomb-nested", pack({"deepcore/methods/one.py": b"(" * 5_000})
    yield "checkout", "bomb-cycle", pack({"deepcore/methods/one.py": b"class A(B): pass\nclass B(A): pass\nclass C(C, CoresetMethod): pass\n"})
    yield "checkout", "bomb-digits", pack({"deepcore/methods/one.py": b"class A(CoresetMethod):\n def __init__(self, a=0x" + b"f" * 5000 + b"): pass\n"})
    yield "checkout", "bomb-head", pack({".git": b"gitdir: /dev/zero\n"})


def every() -> Seeds:
    for part in (selections, grids, checkpoints, distilled, bins, pictures, tables, saved, roots, autoencoders, stores, checkouts):
        yield from part()


def main() -> None:
    for old in CORPUS.glob("*/*"):
        if old.name.startswith(OURS):
            old.unlink()
    total = 0
    for target, name, content in every():
        size = keep(target, name, content)
        total += size
        if size > 20_000:
            print(f"large: {target}/{name}: {size:,} bytes")
    print(f"{total:,} bytes")


if __name__ == "__main__":
    main()
