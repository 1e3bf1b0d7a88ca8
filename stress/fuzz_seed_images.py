"""The corpus: images, and datasets of them in files and folders."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fuzz_made import Seeds, arrow, folder_of, picture, png_claiming, written
from hostile import Canary, pack


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
    yield (
        "image",
        "bomb-gif",
        b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(6) + b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00;",
    )
    yield "image", "bomb-ppm", b"P6 99999 99999 255\n"
    yield "image", "bomb-eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\nshowpage\n"
    yield "image", "bomb-truncated-jpeg", kinds["jpeg"][: len(kinds["jpeg"]) * 2 // 3]
    classes = {
        f"{split}/{name}/{k}.png": picture("RGB", (3, 2), seed=k)
        for split in ("train", "test")
        for name in "ab"
        for k in range(2)
    }
    yield "folder", "valid-splits", pack(classes)
    yield "folder", "valid-classes", pack({f"{name}/{k}.png": picture("L", (3, 2), seed=k) for name in "ab" for k in range(3)})
    yield "folder", "bomb-pipe", pack({**classes, "train/a/9.png |": b""})
    yield (
        "folder",
        "bomb-links",
        pack({**classes, "train/a/9.png -> /dev/zero": b"", "train/c -> ..": b"", "test/c -> ..": b""}),
    )
    yield (
        "folder",
        "bomb-names",
        pack({f"\udcff{name}\x1b[31m/{k}.png": picture("L", (3, 2)) for name in "ab" for k in range(2)}),
    )
    yield "folder", "bomb-sizes", pack({**classes, "train/a/9.png": png_claiming(9000, 9000)})
    numbered = {
        f"new{c:03d}/class{c:03d}_id{k:03d}.jpg": picture("RGB", (4, 4), "JPEG", k, quality=30)
        for c in range(2)
        for k in range(2)
    }
    yield "images", "valid-sre2l", pack(numbered)
    yield (
        "images",
        "valid-rded",
        pack({f"{c:05d}/class{c:05d}_id{k:05d}.jpg": picture("RGB", (4, 4), "JPEG", k) for c in range(2) for k in range(1)}),
    )
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
    yield (
        "parquets",
        "valid-splits",
        pack({"train-00000-of-00001.parquet": stored(4, **plain), "test/0.parquet": stored(2, **plain)}),
    )
    yield "parquet", "valid-soft", soft_images()["train-00000-of-00001.parquet"]
    yield "parquets", "valid-patches", pack(patches())
    yield "parquets", "bomb-patches", pack({"train-0.parquet": few_patches()})
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
    large = pa.array([{"bytes": bytes(1_500_000), "path": None}] * 1000, kind)
    one_value = pa.table({"image": large, "label": pa.array([k % 2 for k in range(1000)], pa.int64())})
    yield (
        "parquet",
        "bomb-one-value",
        written(lambda path: pq.write_table(one_value, path, compression="zstd", dictionary_pagesize_limit=1 << 22)),
    )
    surrogate = pa.table({"image": image[:4], "label": pa.array([0, 1, 0, 1])}).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["\\ud800", "b"]}}}}', "dqas": "[" * 5_000}
    )
    yield "parquet", "bomb-metadata", written(lambda path: pq.write_table(surrogate, path))


def soft_images() -> dict[str, bytes]:
    from dqas_plugin.data import ImageDataset
    from dqas_plugin.quantization.patch_files import write_images

    images = torch.arange(4 * 3 * 16).remainder(251).to(torch.uint8).reshape(4, 3, 4, 4)
    soft = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).repeat(2, 1)
    held = ImageDataset(images, torch.arange(4) % 2, ("left", "right"), "soft/train", targets=soft)
    return folder_of(lambda folder: write_images(folder, held))


def few_patches() -> bytes:
    """A file that says of one pixel that it is all that is kept of a large image."""
    shape = {"shape": [3, 9000, 9000], "size": 1, "kept": 1, "drop_rate": 0.99, "mae": None, "mae_digest": None}
    told = json.dumps({"version": 1, "mirror": True, "form": "patches", **shape})
    mask = b"\x80" + bytes(9000 * 9000 // 8 - 1)
    content = pa.table({"patches": [b"abc"] * 4, "mask": pa.array([mask] * 4, pa.binary()), "label": [0, 1, 0, 1]})
    content = content.set_column(0, "patches", pa.array([b"abc"] * 4, pa.binary())).replace_schema_metadata({"dqas": told})
    return written(lambda path: pq.write_table(content, path, compression="zstd"))


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
    for name, target in (
        ("null", "a\\u0000b"),
        ("surrogate", "\\ud800"),
        ("outside", "../../../etc/passwd"),
        ("long", "x" * 5000),
    ):
        state = f'{{"_data_files": [{{"filename": "{target}"}}]}}'.encode()
        yield "hf", f"bomb-{name}", pack({**one, "state.json": state})
    yield "hf", "bomb-split", pack({**both, "dataset_dict.json": b'{"splits": ["train\\u0000", "a"]}'})
    yield "hf", "bomb-split-outside", pack({**both, "dataset_dict.json": b'{"splits": [".."]}'})
    yield (
        "hf",
        "bomb-names",
        pack(
            {
                **one,
                "dataset_info.json": b'{"features": {"label": {"_type": "ClassLabel", "names": ["\\ud800", "\\u001b[31m"]}}}',
            }
        ),
    )
    yield "hf", "bomb-zero", pack({**both, "train/state.json -> /dev/zero": b""})
    yield "hf", "bomb-pipe", pack({**both, "train/state.json |": b""})
    yield (
        "hf",
        "bomb-compressed",
        pack(
            split(
                arrow(
                    pa.table({"image": pa.nulls(2_000_000, kind), "label": pa.array(np.zeros(2_000_000, np.int64))}),
                    options=pa.ipc.IpcWriteOptions(compression="zstd"),
                )
            )
        ),
    )


def roots() -> Seeds:
    def idx(values: np.ndarray) -> bytes:
        return struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()

    images, labels = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8), np.array([0, 1], np.uint8)
    labels10 = np.arange(10, dtype=np.uint8)
    images10 = np.zeros((10, 4, 4), np.uint8)
    parts = {"train-images-idx3-ubyte": idx(images10), "train-labels-idx1-ubyte": idx(labels10)}
    parts |= {
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(images10), mtime=0),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels10), mtime=0),
    }
    yield "fashion-mnist", "valid-small", pack(parts)
    yield (
        "fashion-mnist",
        "bomb-two",
        pack({**parts, "train-images-idx3-ubyte": idx(images), "train-labels-idx1-ubyte": idx(labels)}),
    )
    large = struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    yield "fashion-mnist", "bomb-claim", pack({**parts, "train-images-idx3-ubyte": large})
    yield (
        "fashion-mnist",
        "bomb-empty",
        pack(
            {
                **parts,
                "train-images-idx3-ubyte": struct.pack(">4I", 0x0803, 10, 0, 28),
                "t10k-images-idx3-ubyte.gz": gzip.compress(struct.pack(">4I", 0x0803, 10, 0, 28), mtime=0),
            }
        ),
    )
    yield (
        "fashion-mnist",
        "bomb-gzip",
        pack(
            {
                **parts,
                "t10k-images-idx3-ubyte.gz": gzip.compress(
                    struct.pack(">4I", 0x0803, 10, 2000, 500) + bytes(10**7 + 9), mtime=0
                ),
            }
        ),
    )
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
    yield (
        "tiny-imagenet",
        "valid-other-image",
        pack({f"{base}/val/images/val_3.JPEG": picture("L", (1, 1)), f"{base}/words.txt": b"n0\tx\n"}),
    )
    yield "tiny-imagenet", "bomb-annotations", pack({f"{base}/val/val_annotations.txt": b"../../x.JPEG\tn00000001\n\xff\tn0\n"})
    yield "tiny-imagenet", "bomb-stray", pack({f"{base}/train/stray.JPEG": picture("L", (1, 1))})
    yield "tiny-imagenet", "bomb-zero", pack({f"{base}/val/val_annotations.txt -> /dev/zero": b""})
    yield "tiny-imagenet", "bomb-pipe", pack({f"{base}/val/val_annotations.txt |": b""})
