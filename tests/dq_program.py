"""DQ's program for the tests: its real scripts, run on a CPU and on small data, and a stand-in that reads and writes the same.

The real scripts run unchanged. What they lack here is put around them: two packages that they import and do not use, a CIFAR-10
that torchvision does not compare with a checksum, and ``.cuda()`` that leaves things where they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder

Indices = npt.NDArray[np.int64]


class StandIn:
    """What ``quantize_bin.py`` and ``validate_cifar.py`` do with files, written anew.

    Args:
        folder: for what is written.
        labels: of the dataset that stands for CIFAR-10.
    """

    def __init__(self, folder: Path, labels: Indices) -> None:
        self.folder, self.labels = folder, labels

    def sample(self, bins: Path, fraction: float, seed: int) -> Path:
        """``quantize_bin.py --selection_path BINS --fraction F --seed S``: the file that it writes.

        Every file of the folder is a bin, in the order of the names as text. In each bin, for which the seed is set again,
        one class after the other gives its share.
        """
        drawn = []
        for name in sorted(os.listdir(bins)):
            members = np.load(bins / name)
            np.random.seed(seed)  # noqa: NPY002
            for label in range(self.labels.max() + 1):
                places = np.flatnonzero(self.labels[members] == label)
                drawn.append(members[np.random.choice(places, round(fraction * len(places)), replace=False)])  # noqa: NPY002
        path = self.folder / f"select_indices_CIFAR10_{fraction}.npy"
        np.save(path, np.concatenate(drawn))
        return path

    def evaluated(self, data_dir: Path | None, selected: Path | None) -> list[str]:
        """``validate_cifar.py --data_dir D --select_indices S``: the images that it trains on.

        Returns:
            ``label/index.png``, or as text the positions in CIFAR-10 if there is no folder.
        """
        images = None if data_dir is None else ImageFolder(str(data_dir))
        names = [str(one) for one in range(len(self.labels))] if images is None else [_name(one) for one, _ in images.samples]
        if selected is None:
            return names
        chosen = Subset(names, np.append(np.array([]).astype(int), np.load(selected)))  # type: ignore[arg-type]
        return [chosen[one] for one in range(len(chosen))]


class Checkout(StandIn):
    """The real scripts.

    Args:
        folder: for what is written.
        labels: of ten classes.
        checkout: where they are.
    """

    def __init__(self, folder: Path, labels: Indices, checkout: Path) -> None:
        super().__init__(folder, labels)
        self.checkout = checkout
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        np.savez(folder / "cifar10.npz", labels=labels, images=images)
        (folder / "around.py").write_text(AROUND)

    def sample(self, bins: Path, fraction: float, seed: int) -> Path:
        words = ("--fraction", fraction, "--seed", seed, "--selection_path", bins, "-sp", self.folder / "sampled")
        self.run("quantize_bin.py", *words, "--dataset", "CIFAR10", "--data_path", self.folder / "data", "--workers", 0)
        return self.folder / "sampled" / f"select_indices_CIFAR10_{fraction}.npy"

    def evaluated(self, data_dir: Path | None, selected: Path | None) -> list[str]:
        words: list[str | Path] = [] if data_dir is None else ["--data_dir", data_dir]
        words += [] if selected is None else ["--select_indices", selected]
        report = self.folder / "trained on.txt"
        self.run("validate_cifar.py", *words, report=report)
        return [one if data_dir is None else _name(one) for one in report.read_text().split("\n")]

    def run(self, script: str, *arguments: str | Path | float, report: Path | None = None) -> None:
        """Run a script. With ``report`` it stops at its first data loader and writes there what is in it."""
        words: Sequence[object] = (self.checkout, script, self.folder / "cifar10.npz", report or "", *arguments)
        done = subprocess.run(
            [sys.executable, "around.py", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]


def _name(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


AROUND = '''
import runpy, sys, types
import numpy as np, torch, torchvision
from PIL import Image

checkout, script, data, report = sys.argv[1:5]
for name, inside in (("prefetch_generator", "BackgroundGenerator"), ("torchcam", None), ("torchcam.methods", "GradCAMpp")):
    module = types.ModuleType(name)
    if inside:
        setattr(module, inside, object)
    sys.modules.setdefault(name, module)


class Cifar10:
    """Labels and images of a file, with the surface of torchvision's class."""

    def __init__(self, root, train=True, download=False, transform=None):
        held = np.load(data)
        self.data, self.targets, self.transform = held["images"], held["labels"].tolist(), transform
        self.classes = [f"class {one}" for one in range(max(self.targets) + 1)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        image = Image.fromarray(self.data[index])
        return self.transform(image) if self.transform else image, self.targets[index]


torchvision.datasets.CIFAR10 = Cifar10
for kind in (torch.Tensor, torch.nn.Module):
    kind.cuda = lambda self, *_, **__: self
if report:

    class FirstOnly(torch.utils.data.DataLoader):
        """Writes down what would be trained on, and stops."""

        def __init__(self, images, *_, **__):
            chosen = list(range(len(images)))
            if isinstance(images, torch.utils.data.Subset):
                chosen, images = list(images.indices), images.dataset
            named = [images.samples[one][0] if hasattr(images, "samples") else str(one) for one in chosen]
            open(report, "w").write("\\n".join(named))
            raise SystemExit(0)

    torch.utils.data.DataLoader = FirstOnly
sys.path.insert(0, checkout)
sys.argv = [script, *sys.argv[5:]]
runpy.run_path(f"{checkout}/{script}", run_name="__main__")
'''
