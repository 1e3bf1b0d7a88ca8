"""The contact sheets of the report: the right images, of bounded size, and a sentence where there are none."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dqas_plugin import load_dataset
from dqas_plugin.bench import DatasetReference
from dqas_plugin.bench.cell import give
from dqas_plugin.bench.evidence import read
from dqas_plugin.bench.report import images, write
from dqas_plugin.bench.report.pairs import pairs
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.selection import Selection
from evidence_problem import TOY, result, section, toy_cells
from report_problem import Page, digits_cells, results, select


def strips(found: Page) -> list[tuple[str, Image.Image]]:
    sources = [(str(one["alt"]), str(one["src"])) for name, one in found.elements if name == "img"]
    return [(alt, Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for alt, source in sources]


def tiles(strip: Image.Image, side: int) -> list[bytes]:
    """The pictures of a strip, where it is not clear."""
    pixels = np.asarray(strip)
    parts = [pixels[:, left : left + side] for left in range(0, pixels.shape[1], side + 1)]
    return [part[..., 0].tobytes() for part in parts if part[..., 1].all()]


def test_pictures_are_of_the_images_that_were_picked(read_page: Page, report: Path) -> None:
    train = load_dataset("digits").train
    cells = [cell for cell in digits_cells() if (cell.method, cell.label, cell.seed) == ("graphcut", "5 %", 0)]
    even, other = (Selection.load(report.parent / "selections" / f"{cell.key}.npz") for cell in cells)
    known = {train.images[index].numpy().tobytes(): index for index in range(len(train))}
    found = strips(read_page)
    assert len(found) == 30
    for label in range(10):
        of_class = np.flatnonzero(train.labels.numpy() == label)
        picks = [np.intersect1d(one.indices, of_class) for one in (even, other)]
        left = np.setdiff1d(of_class, np.concatenate(picks))
        for (alt, strip), some in zip(found[3 * label : 3 * label + 3], (*picks, left), strict=True):
            shown = [known[one] for one in tiles(strip, 8)]
            assert len(shown) == min(8, len(some))
            assert set(shown) <= set(some.tolist())
            assert alt.startswith(f"{len(shown)} of {len(some)} images of class {train.classes[label]}, ")


def test_the_page_does_without_pictures(read_page: Page, tmp_path: Path) -> None:
    text = "".join(read_page.words)
    assert re.search(r"There are no pictures: none cannot be loaded here \(.*\)\.", text)  # the toy has no folder
    folder = results(tmp_path / "results")
    for file in (folder / "selections").iterdir():
        file.unlink()
    out = tmp_path / "report.html"
    write(read(folder, dataset="digits"), folder, out)
    found = Page(out.read_text(encoding="utf-8"))
    assert strips(found) == []
    assert re.search(
        r"There are no pictures: .*\.npz cannot be read as a selection \(No such file or directory\)", "".join(found.words)
    )


def test_nothing_is_downloaded_for_pictures(tmp_path: Path) -> None:
    cells = toy_cells(dataset=replace(TOY, name="cifar10", root=str(tmp_path / "data")), ratios=[0.05], seeds=1)
    with pytest.raises(
        images.NoPicturesError, match=r"cifar10 cannot be loaded here \(cifar10 is not in .*data, and nothing is"
    ):
        images.contact_sheet(pairs(section(cells)), lambda key: tmp_path / key, images.PAGE)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_other_data_are_refused(tmp_path: Path) -> None:
    folder = results(tmp_path / "results")
    [cell] = [one for one in digits_cells() if (one.method, one.label, one.seed, one.variant) == ("graphcut", "5 %", 0, "")]
    chosen = select(cell, folder)
    replace(chosen, provenance={"fingerprint": "other", "dataset": "other"}).save(folder / "selections" / f"{cell.key}.npz")
    found = pairs(read(folder, dataset="digits")[0])
    with pytest.raises(images.NoPicturesError, match=r"was made for other \(fingerprint other\)"):
        images.contact_sheet(found, lambda key: folder / "selections" / f"{key}.npz", images.PAGE)


def noise(size: int, channels: int = 3) -> tuple[DatasetReference, DatasetSplits]:
    """The worst there is to compress."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 12
    names = tuple(f"class {label}" for label in range(12))
    train, test = (
        ImageDataset(torch.randint(256, (300, channels, size, size), dtype=torch.uint8, generator=rng), labels, names, name)
        for name in ("noise/train", "noise/test")
    )
    splits = DatasetSplits(train, test)
    return DatasetReference.of(splits, "noise"), splits


def kept(folder: Path, reference: DatasetReference, splits: DatasetSplits) -> list[Any]:
    """Pairs of that dataset, their selections kept in the folder."""
    cells = toy_cells(dataset=reference, ratios=[0.5], seeds=1)
    found = pairs(section(cells, lambda cell: result([0.5] * 12, [13] * 12 if cell.variant else [12] * 12, cell.key)))
    give(reference, splits)
    for cell in cells:
        count = 13 if cell.variant else 12
        picks = np.concatenate([np.flatnonzero(splits.train.labels.numpy() == label)[:count] for label in range(12)])
        Selection(picks, np.full(12, count)).save(folder / f"{cell.key}.npz")
    return found


def test_pictures_are_bounded(tmp_path: Path) -> None:
    found = kept(tmp_path, *noise(96))
    sheet = images.contact_sheet(found, lambda key: tmp_path / f"{key}.npz", images.PAGE)
    assert 500_000 < len(sheet) < images.PAGE
    assert sheet.count("<img") == 30  # ten of twelve classes
    assert "The 10 classes whose numbers of images changed most are shown." in sheet
    with pytest.raises(images.NoPicturesError, match="to keep the page small"):
        images.contact_sheet(found, lambda key: tmp_path / f"{key}.npz", len(sheet) // 2)


def test_channels_that_are_no_picture(tmp_path: Path) -> None:
    found = kept(tmp_path, *noise(8, channels=4))
    with pytest.raises(images.NoPicturesError, match="the images of noise have 4 channels"):
        images.contact_sheet(found, lambda key: tmp_path / f"{key}.npz", images.PAGE)
