"""Training speed: ``dqas_plugin.training.train`` against the loop that everybody copies.

The other loop is the usual one: PIL images, torchvision's RandomCrop(4), RandomHorizontalFlip, ToTensor and Normalize in a
DataLoader (with 0 or 2 workers, whichever proves faster; 0 with --quick), fp32, channels first. Same networks, same images,
same optimiser, in turns within one run, so that a busy machine slows both. Building the network and warming up are not timed.

    python benchmarks/training.py            # random images
    python benchmarks/training.py --quick    # under a minute
    python benchmarks/training.py --precision fp32    # what is left where a processor has no bf16
    python benchmarks/training.py --data cifar10-jpeg/train-00000-of-00001.parquet

The last line is the headline: the median over repeats of the ratio for ResNet-18.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dqas_plugin.data import ImageDataset
from dqas_plugin.models import convnet3, resnet18
from dqas_plugin.precision import Build, resolve
from dqas_plugin.recipes import Precision, recipe
from dqas_plugin.training import train

BATCH = 128
HEADLINE = "resnet18"
MODELS: dict[str, Build] = {HEADLINE: resnet18, "convnet3": convnet3}


class PilDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images and labels as torchvision's own datasets keep them: an array, made a PIL image for each look."""

    def __init__(self, data: ImageDataset) -> None:
        mean, std = (values.tolist() for values in data.channel_statistics)
        self.pixels = data.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(data.image_shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def usual_loop(network: nn.Module, data: PilDataset, workers: int) -> float:
    """One epoch of the usual loop; images per second."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    criterion = nn.CrossEntropyLoss()
    network.train()
    started = time.perf_counter()
    for images, labels in DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers):
        optimizer.zero_grad()
        criterion(network(images), labels).backward()
        optimizer.step()
    return len(data) / (time.perf_counter() - started)


def our_loop(build: Build, data: ImageDataset, precision: Precision, seed: int) -> tuple[float, str]:
    """One epoch of ``train``; images per second and precision."""
    result = train(build, data, recipe("paper").with_(epochs=1, lr=0.01, precision=precision), seed)
    return result.images_per_second, result.precision


def images(path: str | None, count: int) -> ImageDataset:
    """``count`` images of 32 px: random ones, or the first of a parquet file with the columns ``img`` and ``label``."""
    names = tuple(str(one) for one in range(10))
    if path is None:
        draws = np.random.default_rng(0)
        pixels = torch.from_numpy(draws.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
        return ImageDataset(pixels, torch.from_numpy(draws.integers(0, 10, count)), names, "random 32x32")
    import pyarrow.parquet

    rows: dict[str, list[Any]] = pyarrow.parquet.ParquetFile(path).read(columns=["img", "label"]).slice(0, count).to_pydict()
    arrays = [np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("RGB")) for one in rows["img"]]
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return ImageDataset(stacked, torch.tensor(rows["label"]), names, os.path.basename(path))


def compare(name: str, data: ImageDataset, precision: Precision, budget: float, quick: bool) -> float:
    """Print one row of the table; the median ratio of five turns, or of those that ``budget`` seconds have room for."""
    started = time.perf_counter()
    build, pil = MODELS[name], PilDataset(data)
    resolve(precision, build, data.image_shape)
    network = build(data.image_shape, data.num_classes)
    first = data.subset(range(BATCH))
    our_loop(build, first, precision, 0)
    usual_loop(network, PilDataset(first), 0)
    workers = 0 if quick else max((0, 2), key=lambda count: usual_loop(network, pil, count))
    pairs: list[tuple[float, float, str]] = []
    turn = 0.0
    while not pairs or (len(pairs) < 5 and time.perf_counter() - started + turn < budget):
        begun = time.perf_counter()
        pairs.append((usual_loop(network, pil, workers), *our_loop(build, data, precision, len(pairs))))
        turn = time.perf_counter() - begun
    usual, ours = statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)
    ratios = sorted(pair[1] / pair[0] for pair in pairs)
    ratio = statistics.median(ratios)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f} ({len(ratios)})"
    print(f"{name:10} {usual:12.1f} {workers:8} {ours:10.1f} {pairs[0][2]:>10} {ratio:7.2f}   {spread}", flush=True)
    return float(ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats, under a minute")
    parser.add_argument("--data", help="parquet file of 32-pixel images (columns img, label) rather than random ones")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="of train() (default: as probed)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    batches = {HEADLINE: 1, "convnet3": 3} if options.quick else {HEADLINE: 8, "convnet3": 24}
    budgets = {HEADLINE: 20.0, "convnet3": 8.0} if options.quick else {HEADLINE: 240.0, "convnet3": 120.0}
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {capability}, batch {BATCH}")
    print(f"{'images/s':10} {'usual loop':>12} {'workers':>8} {'train()':>10} {'precision':>10} {'ratio':>7}   range (turns)")
    ratios = {}
    for name in MODELS:
        data = images(options.data, batches[name] * BATCH)
        ratios[name] = compare(name, data, options.precision, budgets[name], options.quick)
    print(f"ratio {ratios[HEADLINE]:.1f}")


if __name__ == "__main__":
    main()
