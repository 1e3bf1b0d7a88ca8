"""Every reader of files of the program as a target for hostile bytes; see :mod:`hostile`."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dqas_plugin.data import DatasetSplits, ImageDataset, TrainOnly
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import Plugins
from dqas_plugin.selection import Ranking, Selection
from hostile import DefectError, Target

WITHOUT = {"digits": "embedded, no files", "shapes": "generated, no files"}
"""Datasets that read no files."""

IMAGES = 1500 << 20
"""Bytes that one image of at most 89 million pixels may take (Pillow's limit), which is more than most inputs are worth."""


@cache
def data() -> ImageDataset:
    """What the indices in selections, bins and checkpoints belong to: 30 images of 3 classes."""
    labels = torch.arange(30) % 3
    images = (torch.arange(30 * 64) % 251).to(torch.uint8).reshape(30, 1, 8, 8)
    return ImageDataset(images, labels, ("ant", "bee", "cat"), "thirty/train", mirror=False)


def use(found: Any) -> None:
    """Whatever a reader gave, taken at its word."""
    if isinstance(found, DatasetSplits):
        for split in [found.train] if isinstance(found, TrainOnly) else [found.train, found.test]:
            _use_images(split)
    elif isinstance(found, Selection):
        _printable(f"{found.fingerprint}")
        copied = Selection.load(found.save(Path("../out/hostile.npz")))
        assert copied.indices.tolist() == found.indices.tolist()
        assert copied.provenance.keys() == found.provenance.keys()
        found.check(data(), "hostile")
    elif isinstance(found, Ranking):
        _printable(found.method)
        taken = found.take(found.capacity // 2)
        assert len(taken) == len(np.unique(taken)) == int((found.capacity // 2).sum())
        found.taken_weights(found.capacity // 2)
        Ranking.load(found.save(Path("../out/hostile.npz")))


def _use_images(split: ImageDataset) -> None:
    _ = split.fingerprint, split.class_sizes, split.image_shape
    if min(split.image_shape) < 1 or not len(split):
        raise DefectError("value", f"images of {split.image_shape}, {len(split)} of them")
    mean, deviation = split.channel_statistics
    assert torch.isfinite(mean).all()
    assert torch.isfinite(deviation).all()
    _printable("".join([*split.classes, *split.notes]))
    if split.targets is not None:
        assert torch.isfinite(split.targets).all()


def _printable(text: str) -> None:
    """A terminal takes UTF-8; undecodable names of files are Python's own affair."""
    if any("\ud800" <= one <= "\udc7f" or "\udd00" <= one <= "\udfff" for one in text):
        raise DefectError("value", f"text that cannot be written: {text[:80]!r}")


def _dataset(form: str, *variants: dict[str, Any]) -> Callable[[Path, int], None]:
    """Load ``form:PATH`` with one of these sets of options."""
    from dqas_plugin.lookup import load_dataset

    def run(path: Path, variant: int) -> None:
        use(load_dataset(f"{form}:{path}", **([*variants] or [{}])[variant]))

    return run


def _rooted(name: str) -> Callable[[Path, int], None]:
    """Load a dataset from a root folder; nothing is downloaded."""
    from dqas_plugin.datasets.download import no_downloads
    from dqas_plugin.lookup import load_dataset

    def run(path: Path, _: int) -> None:
        with no_downloads():
            use(load_dataset(name, path))

    return run


def _importer(name: str, *variants: dict[str, Any]) -> Callable[[Path, int], None]:
    from dqas_plugin.plugins import plugins

    def run(path: Path, variant: int) -> None:
        reader = plugins().importers[name]
        use(reader.read(path, data() if reader.needs_dataset else None, **([*variants] or [{}])[variant]))

    return run


def _grid(path: Path, _: int) -> None:
    """All that is known before data are loaded."""
    from dqas_plugin.bench import read_grid

    for spec in read_grid(path):
        with spec.located():
            spec.loader_options()
            if len(spec.methods) < 5 and not spec.model.startswith("timm") and not spec.features.startswith("timm"):
                spec.arguments()


def _mae(path: Path, _: int) -> None:
    from dqas_plugin.quantization.mae import reconstruct
    from dqas_plugin.quantization.mae_weights import load_mae

    mae = load_mae(path)
    channels, height, width = mae.shape.image
    if channels * height * width < 10_000 and mae.shape.depth < 8:
        keep = torch.ones((1, mae.shape.patches), dtype=torch.bool)
        keep[0, 0] = mae.shape.patches == 1
        reconstruct(mae, torch.zeros((1, channels, height, width), dtype=torch.uint8), keep)


def _image(path: Path, variant: int) -> None:
    from dqas_plugin.datasets.decode import Encoded, decode_batches, without_size_warnings

    with without_size_warnings():
        for batch in decode_batches([[Encoded(str(path), path.read_bytes())]], None if variant else 8):
            for one in batch:
                assert one.pixels.dtype == np.uint8
                assert one.pixels.shape[0] in (1, 3)


def _results(path: Path, _: int) -> None:
    """Every table of a folder of results."""
    from dqas_plugin.bench import evidence, layout, tables

    sections = evidence.read(path)
    for number in range(1, 6):
        for form in ("plain", "html"):
            try:
                _printable(layout.render(tables.build(number, sections, path), form, 80))
            except UserError as error:
                if "hostile" not in str(error):
                    raise UserError(f"hostile: {error}") from error  # a table that these results cannot fill


def _write_results(path: Path) -> None:
    """Make ``results.sqlite`` of the cells in a bundle, unless it brings one."""
    import sqlite3

    from dqas_plugin.bench.store import Store

    rows = sorted({one.parent for one in path.glob("*/config")})
    if os.path.lexists(path / "results.sqlite") or not rows:
        return
    with Store(path):
        pass
    with sqlite3.connect(path / "results.sqlite") as database:
        for place, one in enumerate(rows):
            texts = [
                (one / name).read_bytes().decode("utf-8", "replace") for name in ("config", "result") if (one / name).is_file()
            ]
            if len(texts) == 2:
                database.execute("INSERT INTO cells VALUES (?, ?, ?, ?)", (one.name, *texts, f"2026-01-01T00:00:{place:02}"))
    database.close()


def _weights(path: Path, _: int) -> None:
    from dqas_plugin import extractors

    extractors._fill(_network(), path, "test_resnet")


@cache
def _network() -> Any:
    from dqas_plugin import extractors

    return extractors._fresh("test_resnet")


def _checkout(path: Path, _: int) -> None:
    from dqas_adapters.deepcore.checkout import Checkout

    found = Checkout.at(path)
    _printable(found.version)
    for one in found.methods.values():
        _printable(f"{one.name}{[*one.options]}")


def _checkout_skeleton(folder: Path) -> None:
    for one in ("methods", "nets"):
        (folder / "deepcore" / one).mkdir(parents=True)
        (folder / "deepcore" / one / "__init__.py").write_text("from .one import *\n")
    (folder / "deepcore" / "methods" / "one.py").write_text(
        "from .coresetmethod import CoresetMethod\nclass One(CoresetMethod):\n    def __init__(self, a=1): pass\n"
    )


@cache
def _dot() -> bytes:
    buffer = BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    return buffer.getvalue()


_TINY = 5  # classes instead of 200, which take long to write


def _tiny_skeleton(folder: Path) -> None:
    """The layout of Tiny ImageNet with one image of one pixel in each class and split."""
    base = folder / "tiny-imagenet-200"
    (base / "val" / "images").mkdir(parents=True)
    lines = []
    for place in range(_TINY):
        name = f"n{place:08d}"
        (base / "train" / name / "images").mkdir(parents=True)
        (base / "train" / name / "images" / f"{name}_0.JPEG").write_bytes(_dot())
        (base / "val" / "images" / f"val_{place}.JPEG").write_bytes(_dot())
        lines.append(f"val_{place}.JPEG\t{name}\t0\t0\t1\t1\n")
    (base / "val" / "val_annotations.txt").write_text("".join(lines))


def _tiny(path: Path, variant: int) -> None:
    from dqas_plugin.datasets import tiny_imagenet

    classes = tiny_imagenet._CLASSES
    tiny_imagenet._CLASSES = _TINY
    try:
        _rooted("tiny-imagenet")(path, variant)
    finally:
        tiny_imagenet._CLASSES = classes


_FORMATION = ({}, {"factor": 2, "decode": "multi"}, {"in_order": False, "check": False, "normalisation": "cifar10"})

TARGETS: dict[str, Target] = {
    one.name: one
    for one in (
        Target("selection", _importer("selection"), "hostile.npz", ("selection",)),
        Target("ranking", _importer("ranking"), "hostile.npz", ("ranking",)),
        Target("grid", _grid, "hostile.toml"),
        Target("deepcore", _importer("deepcore"), "hostile.ckpt", ("deepcore",)),
        Target("dq", _importer("dq", {}, {"check_order": False}), "select_indices_hostile_0.5.npy", ("dq",), variants=2),
        Target("dq-bins", _importer("dq-bins", {}, {"check_order": False}), None, ("dq-bins",), variants=2),
        Target("dq-images", _dataset("dq-images", {}, {"size": 4, "gaps": True}), None, ("dq-images",), None, 2, IMAGES),
        Target(
            "dc",
            _dataset("dc", {}, {"run": -1, "in_order": False, "check": False}),
            "res_DC_CIFAR10_hostile_1ipc.pt",
            ("dc",),
            variants=2,
        ),
        Target("dream", _dataset("dream", *_FORMATION), None, ("dream",), variants=3),
        Target(
            "mtt",
            _dataset("mtt", {"normalisation": "none"}, {"normalisation": "cifar10", "check": False, "soft_labels": "logits"}),
            None,
            ("mtt", "datm"),
            variants=2,
        ),
        Target("hf", _dataset("hf", {}, {"size": 3, "test_share": 0.5}), None, ("hf",), None, 2, IMAGES),
        Target(
            "parquet",
            _dataset("parquet", {"test_share": 0.5}, {"size": 3, "test_share": 0.0}),
            "hostile.parquet",
            ("parquet",),
            None,
            2,
            IMAGES,
        ),
        Target("parquets", _dataset("parquet", {}, {"size": 3}), None, (), None, 2, IMAGES),
        Target("folder", _dataset("folder", {}, {"size": 3}), None, ("folder",), None, 2, IMAGES),
        Target("images", _dataset("images", {}, {"size": 3}), None, ("images",), None, 2, IMAGES),
        Target("image", _image, "hostile", (), None, 2, IMAGES),
        Target("fashion-mnist", _rooted("fashion-mnist"), None, ("fashion-mnist",)),
        Target("cifar10", _rooted("cifar10"), None, ("cifar10",)),
        Target("cifar100", _rooted("cifar100"), None, ("cifar100",)),
        Target("tiny-imagenet", _tiny, None, ("tiny-imagenet",), _tiny_skeleton),
        Target("mae", _mae, "hostile.pth"),
        Target("weights", _weights, "hostile.pth"),
        Target("checkout", _checkout, None, (), _checkout_skeleton),
        Target("results", _results, finish=_write_results),
    )
}
"""Every target by name."""


def uncovered(loaded: Plugins) -> set[str]:
    """Importers, and datasets, that no target stands for."""
    known = {name for one in TARGETS.values() for name in one.covers} | WITHOUT.keys()
    return {*loaded.importers, *loaded.datasets} - known


def variant_of(target: Target, content: bytes) -> int:
    """Which variant an input is tried with where it is tried once."""
    return zlib.crc32(content) % target.variants
