"""Files for DQ's scripts, and those scripts on them: the real ones where DQ_HOME names a checkout of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dq_files import even_bins, labelled, refused, registered, save_bins, shuffled_labels
from dq_program import Checkout, StandIn
from dqas_adapters.dq.binning import bins_of
from dqas_adapters.dq.images import load_images
from dqas_adapters.dq.reading import load_bins, load_selection
from dqas_cli.main import cli
from dqas_plugin import Ranking, Selection, load_dataset, select
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.exporting import export
from dqas_plugin.quantization.bins import graphcut_bins
from dqas_plugin.recipes import Recipe
from dqas_plugin.signals import Signals
from toys import toy

_registered = pytest.fixture(autouse=True)(registered)
SHORT = Recipe("short", iterations=4, batch=16, precision="fp32", proxy_epochs=1)
LABELS = shuffled_labels(10, 40)


@pytest.fixture(params=["stand-in", "real"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> StandIn:
    """DQ's scripts on a CIFAR-10 of 400 images."""
    if request.param == "stand-in":
        return StandIn(tmp_path, LABELS)
    return real(tmp_path)


def real(folder: Path, labels: np.ndarray = LABELS) -> Checkout:
    home = os.environ.get("DQ_HOME")
    if not home:
        pytest.skip("DQ_HOME does not name a checkout of magic-research/Dataset_Quantization")
    return Checkout(folder, labels, Path(home).resolve())


def two_splits(data: ImageDataset) -> DatasetSplits:
    return DatasetSplits(data, data)


def chosen_from_bins(tmp_path: Path, data: ImageDataset, budget: int) -> tuple[Path, list[np.ndarray], Selection]:
    bins = even_bins(data.labels.numpy(), 5)
    folder = save_bins(tmp_path / "their bins", bins)
    return folder, bins, select(data, f"dq-bins:{folder}", budget=budget)


def colour(labels: np.ndarray, name: str = "cifar10/train") -> ImageDataset:
    images = np.random.default_rng(3).integers(0, 256, (len(labels), 3, 4, 4), dtype=np.uint8)
    names = tuple(f"class {one}" for one in range(labels.max() + 1))
    return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), names, name)


def test_layout(tmp_path: Path) -> None:
    data = colour(LABELS)
    folder, bins, chosen = chosen_from_bins(tmp_path, data, 50)
    out = tmp_path / "out"
    written = export("dq", two_splits(data), chosen, out, bins_from=str(folder), images=True, imagefolder=True)
    names = {one.relative_to(out).as_posix() for one in written}
    pictures = {f"images/{LABELS[index]}/{index}.png" for index in chosen.indices}
    indices = {f"{folder}select_indices_CIFAR10_0.125.npy" for folder in ("", "imagefolder/")}
    own = {f"bins/select_indices_CIFAR10_exp{number}.npy" for number in range(5)}
    assert names == pictures | indices | own | {"selection.npz", "dqas.json"}
    raw = np.load(out / "select_indices_CIFAR10_0.125.npy")
    assert raw.dtype == np.int64
    assert raw.tolist() == chosen.indices.tolist()
    for number, one in enumerate(bins):
        assert np.load(out / f"bins/select_indices_CIFAR10_exp{number}.npy").tolist() == one.tolist()
    index = int(chosen.indices[7])
    with Image.open(out / f"images/{LABELS[index]}/{index}.png") as image:
        np.testing.assert_array_equal(np.asarray(image), data.images[index].permute(1, 2, 0).numpy())


def test_dq_samples_from_our_bins(program: StandIn, tmp_path: Path) -> None:
    """Its sampler on bins that this program wrote: every bin gives the same share of each class."""
    data = colour(LABELS)
    folder, bins, chosen = chosen_from_bins(tmp_path, data, 50)
    export("dq", two_splits(data), chosen, tmp_path / "out", bins_from=str(folder))
    path = program.sample(tmp_path / "out" / "bins", 0.25, seed=3)
    raw = np.load(path)
    assert raw.tolist() == np.load(StandIn(tmp_path, LABELS).sample(tmp_path / "out" / "bins", 0.25, seed=3)).tolist()
    found = load_selection(path, data)
    assert set(found.indices) == set(raw)
    ours = load_bins(tmp_path / "out" / "bins", data).take(found.counts)
    for one in bins:
        theirs = np.bincount(LABELS[raw[np.isin(raw, one)]], minlength=10)
        assert theirs.tolist() == np.bincount(LABELS[ours[np.isin(ours, one)]], minlength=10).tolist() == [2] * 10


def test_dq_evaluates_what_we_chose(program: StandIn, tmp_path: Path) -> None:
    data = colour(LABELS)
    chosen = select(data, "random", budget=50)
    out = tmp_path / "out"
    export("dq", two_splits(data), chosen, out, images=True, imagefolder=True)
    export("dq", two_splits(data), None, tmp_path / "all", images=True)
    name = "select_indices_CIFAR10_0.125.npy"
    wanted = [f"{LABELS[index]}/{index}.png" for index in chosen.indices]
    assert program.evaluated(None, out / name) == [str(index) for index in chosen.indices]
    assert sorted(program.evaluated(out / "images", None)) == sorted(wanted)
    assert program.evaluated(tmp_path / "all" / "images", out / "imagefolder" / name) == wanted
    as_they_say = program.evaluated(tmp_path / "all" / "images", out / name)
    assert len(set(as_they_say) & set(wanted)) < 25  # as its README says: mostly other images


def test_images_go_round(tmp_path: Path) -> None:
    data = colour(LABELS)
    chosen = select(data, "random", budget=50)
    export("dq", two_splits(data), chosen, tmp_path / "part", images=True)
    back = load_images(str(tmp_path / "part" / "images"), gaps=True).train
    kept = np.sort(chosen.indices)
    assert torch.equal(back.images, data.images[kept])
    assert torch.equal(back.labels, data.labels[kept])
    grey = toy()
    export("dq", two_splits(grey), None, tmp_path / "grey", images=True)
    whole = load_images(str(tmp_path / "grey" / "images"), classes_from=None).train
    assert torch.equal(whole.images, grey.images)
    assert np.load(tmp_path / "grey" / "select_indices_toy_1.0.npy").tolist() == list(range(len(grey)))


@pytest.mark.parametrize(
    ("method", "objective"), [("bins", "eq7"), ("bins:deepcore", "deepcore"), ("dq", "dq"), ("dqas", "eq7")]
)
def test_bins_are_filled_again(tmp_path: Path, method: str, objective: Any) -> None:
    data = toy()
    chosen = select(data, method, budget=24, bins=4, model="convnet3-small", recipe=SHORT)
    export("dq", two_splits(data), chosen, tmp_path / "out", bins=True, dataset="Toy", fraction=0.3)
    assert (tmp_path / "out" / "select_indices_Toy_0.3.npy").is_file()
    found = [np.load(tmp_path / "out" / "bins" / f"select_indices_Toy_exp{number}.npy") for number in range(4)]
    assert sorted(np.concatenate(found)) == list(range(48))
    for one in found:
        assert np.bincount(data.labels.numpy()[chosen.indices[np.isin(chosen.indices, one)]]).tolist() == [2, 2, 2]
    signals = signals_of(data)
    for label in range(3):
        view = signals.view(label)
        expected = [view.indices[one].tolist() for one in graphcut_bins(view, 4, objective=objective)]
        assert [one[data.labels.numpy()[one] == label].tolist() for one in found] == expected
    again = select(data, f"dq-bins:{tmp_path / 'out' / 'bins'}", budget=24)
    assert again.counts.tolist() == chosen.counts.tolist()


def signals_of(data: ImageDataset) -> Signals:
    from dqas_plugin.lookup import resolve_model
    from dqas_plugin.trained_signals import compute_signals

    return compute_signals(data, "convnet3-small", resolve_model("convnet3-small"), SHORT, 0)


def test_what_a_refiner_added_is_not_asked_of_the_bins(tmp_path: Path) -> None:
    data = labelled(LABELS)
    folder, bins, chosen = chosen_from_bins(tmp_path, data, 50)
    rest = np.setdiff1d(bins[0], chosen.indices)[:5]
    counts = np.bincount(LABELS[np.append(chosen.indices, rest)], minlength=10)
    told = {**chosen.provenance, "budget": 55, "refine_share": 5 / 55}
    refined = Selection(np.append(chosen.indices, rest), counts, None, told)
    assert len(bins_of(refined, data, bins_from=str(folder))) == 5
    unsaid = replace(refined, provenance={**told, "refine_share": None})
    assert "was not drawn from the bins" in refused(lambda: bins_of(unsaid, data, bins_from=str(folder)))


def test_bins_that_cannot_be_told(tmp_path: Path) -> None:
    data = labelled(LABELS)
    folder, _, chosen = chosen_from_bins(tmp_path, data, 50)
    other = save_bins(tmp_path / "others", even_bins(LABELS, 5, seed=1))
    assert "was not drawn from the bins of" in refused(lambda: bins_of(chosen, data, bins_from=str(other)))
    assert "name their folder with bins_from=FOLDER" in refused(lambda: bins_of(chosen, data))
    by_chance = select(data, "random", budget=50)
    assert "made with 'random', which leaves no bins" in refused(lambda: bins_of(by_chance, data))
    assert "'an unknown method'" in refused(lambda: bins_of(replace(by_chance, provenance={}), data))
    untold = replace(by_chance, provenance={"method": "bins"})
    assert "does not say how it was made" in refused(lambda: bins_of(untold, data))
    rebuilt = replace(by_chance, provenance={"method": "bins", "bins_on": "reconstructed"})
    assert "leaves no bins" in refused(lambda: bins_of(rebuilt, data))
    half = save_bins(tmp_path / "half", even_bins(LABELS, 5)[:2])
    assert "was not drawn from the bins" in refused(lambda: bins_of(chosen, data, bins_from=str(half)))
    assert len(bins_of(chosen, data, bins_from=str(folder))) == 5


def test_mistakes_of_export_leave_nothing(tmp_path: Path) -> None:
    data = colour(LABELS)
    chosen = select(data, "random", budget=50)
    weighted = replace(chosen, weights=np.ones(50, np.float32))
    soft = replace(data, targets=torch.full((400, 10), 0.1))
    wide = replace(data, images=data.images.repeat(1, 2, 1, 1))
    out = tmp_path / "out"
    cases: list[tuple[ImageDataset, Selection | None, dict[str, Any], str]] = [
        (data, weighted, {}, "has loss weights, which DQ's files cannot hold"),
        (data, None, {"bins": True}, "bins are those that a selection was drawn from"),
        (data, chosen, {"dataset": "../up"}, "cannot be part of the name of a file"),
        (data, chosen, {"fraction": 1.5}, "fraction of the exporter 'dq' must be above 0 and at most 1, not 1.5"),
        (data, chosen, {"fraction": float("nan")}, "fraction of the exporter 'dq' must be above 0"),
        (soft, None, {"images": True}, "has soft labels, which folders of images cannot hold"),
        (wide, None, {"images": True}, "has images of 6 channels"),
    ]
    for images, selection, options, words in cases:
        assert words in refused(
            lambda images=images, selection=selection, options=options: export(  # type: ignore[misc]
                "dq", two_splits(images), selection, out, **options
            )
        )
        assert not out.exists()
    export("dq", two_splits(data), weighted, out, drop_weights=True)
    assert np.load(out / "select_indices_CIFAR10_0.125.npy").tolist() == chosen.indices.tolist()


def test_names(tmp_path: Path) -> None:
    for number, (name, expected) in enumerate({"my data/x/train": "my-data-x", "../": "dataset", "shapes": "shapes"}.items()):
        data = colour(LABELS, name)
        export("dq", two_splits(data), None, tmp_path / str(number))
        assert (tmp_path / str(number) / f"select_indices_{expected}_1.0.npy").is_file()


# What this program wrote is known again


def test_what_we_wrote_is_bound_to_its_images(tmp_path: Path) -> None:
    labels = shuffled_labels(10, 1000)
    data = labelled(labels)
    uneven = np.concatenate([np.flatnonzero(labels == label)[: 150 + 60 * label] for label in range(10)])
    chosen = Selection(uneven, np.bincount(labels[uneven]), None, {})
    out = tmp_path / "out"
    export("dq", two_splits(data), chosen, out, imagefolder=True, fraction=0.4)
    path = out / "select_indices_toy_0.4.npy"
    assert load_selection(path, data).counts.tolist() == chosen.counts.tolist()  # uneven, and known to be ours
    other = replace(data, images=data.images.flip(0))
    message = refused(lambda: load_selection(path, other))
    assert data.fingerprint in message
    assert other.fingerprint in message
    message = refused(lambda: load_selection(out / "imagefolder" / path.name, data))
    assert f"holds positions in an image folder, not in a dataset: name {path} instead" in message
    np.save(path, uneven[::-1])  # somebody else's now
    assert "unevenly as by chance" in refused(lambda: load_selection(path, data))


def test_our_bins_are_bound_to_their_images(tmp_path: Path) -> None:
    data = labelled(LABELS)
    folder, _, chosen = chosen_from_bins(tmp_path, data, 50)
    export("dq", two_splits(data), chosen, tmp_path / "out", bins_from=str(folder))
    load_bins(tmp_path / "out" / "bins", data)
    other = replace(data, images=data.images.flip(0))
    assert other.fingerprint in refused(lambda: load_bins(tmp_path / "out" / "bins", other))
    load_bins(folder, other)  # bare numbers: nothing tells


# On the command line


def test_commands(tmp_path: Path) -> None:
    labels = load_dataset("digits").train.labels.numpy()
    folder = save_bins(tmp_path / "bins", even_bins(labels, 4))
    digits = ["--dataset", "digits", "--out"]
    invoke("select", "--method", f"dq-bins:{folder}", "--aipc", "8", *digits, str(tmp_path / "a.npz"))
    invoke("import", "dq-bins", str(folder), "--option", "seed=0", *digits, str(tmp_path / "r.npz"))
    first, ranking = Selection.load(tmp_path / "a.npz"), Ranking.load(tmp_path / "r.npz")
    assert first.indices.tolist() == ranking.take(first.counts).tolist()
    write = ["--format", "dq", "--format-option", f"bins_from={folder}", "--format-option", "images=true"]
    invoke("select", "--method", f"dq-bins:{folder}", "--aipc", "8", *digits, str(tmp_path / "out"), *write)
    (path,) = (tmp_path / "out").glob("select_indices_digits_*.npy")
    invoke("import", "dq", str(path), *digits, str(tmp_path / "c.npz"))
    assert Selection.load(tmp_path / "c.npz").indices.tolist() == first.indices.tolist()
    images = ["dq-images", str(tmp_path / "out" / "images"), "--option", "gaps=true"]
    said = invoke("import", *images, "--to", "dq", "--out", str(tmp_path / "again"))
    assert f"80 images of indices up to {first.indices.max()}, numbered anew in that order" in said
    assert (tmp_path / "again" / "select_indices_images_1.0.npy").is_file()
    np.save(path, [0, 10**6])
    message = invoke("import", "dq", str(path), *digits, str(tmp_path / "d.npz"), status=2)
    assert f"{path}: the selection holds 1000000, but digits/train has samples 0..{len(labels) - 1}" in message


def invoke(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(cli, list(arguments))
    shown = done.output if done.exception is None else f"{done.output}{done.exception}"
    assert done.exit_code == status, shown
    return " ".join(shown.split())


# The real program


@pytest.mark.slow
def test_bins_that_the_real_program_fills(tmp_path: Path) -> None:
    """quantize_sample.py on an untrained ResNet-18: its files, read; and its sampler on them."""
    labels = shuffled_labels(10, 10)
    theirs = real(tmp_path, labels)
    size = ["--fraction", 0.2, "--num_exp", 5, "--batch", 128, "--workers", 0, "-se", 0, "--seed", 1]
    rule = ["--selection", "Submodular", "--submodular", "GraphCut", "--submodular_greedy", "NaiveGreedy"]
    paths = ["--data_path", tmp_path / "data", "-sp", tmp_path / "bins"]
    theirs.run("quantize_sample.py", "--dataset", "CIFAR10", "--model", "ResNet18", *size, *rule, *paths)
    data = labelled(labels)
    found = load_bins(tmp_path / "bins", data)
    assert found.provenance["bins"] == [20] * 5
    assert found.capacity.tolist() == [10] * 10
    path = theirs.sample(tmp_path / "bins", 0.5, seed=2)
    assert load_selection(path, data).counts.tolist() == [5] * 10
    assert np.load(path).tolist() == np.load(StandIn(tmp_path, labels).sample(tmp_path / "bins", 0.5, seed=2)).tolist()


@pytest.mark.slow
def test_images_that_the_real_program_writes(tmp_path: Path) -> None:
    """quantize_pixel.py with an untrained autoencoder, which spoils the fifth of the patches that it rebuilds."""
    labels = np.array([*range(10), 3, 3])
    theirs = real(tmp_path, labels)
    torch.save({"model": {}}, tmp_path / "mae.pth")
    words = ["--model", "mae_vit_base_patch16", "--mask_ratio", 0.2, "--batch_size", 7, "--num_workers", 0]
    paths = ["--data_path", tmp_path / "data", "--output_dir", tmp_path / "rebuilt", "--resume", tmp_path / "mae.pth"]
    theirs.run("quantize_pixel.py", "--data", "CIFAR10", *words, *paths)
    data = load_images(str(tmp_path / "rebuilt")).train
    assert data.labels.tolist() == labels.tolist()
    assert data.image_shape == (3, 32, 32)
    original = torch.from_numpy(np.load(tmp_path / "cifar10.npz")["images"]).permute(0, 3, 1, 2)
    distance = (data.images[:, None].float() - original[None].float()).square().flatten(2).mean(dim=2)
    assert distance.argmin(dim=1).tolist() == list(range(12))  # rebuilt from most of its own patches
