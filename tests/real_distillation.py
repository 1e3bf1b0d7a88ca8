"""Runs the real programs for dataset distillation on a few images, on a processor: a script, called by tests as a process.

    python real_distillation.py PROGRAM HOME IMAGES OUT [ARGUMENT …]

HOME is their checkout, which stays as it is; IMAGES an ``.npz`` with ``images`` (uint8 [N, 3, 32, 32]) and ``labels``, which
they get as CIFAR-10. What their code needs and does not find is put in its place: a GPU (calls for one go to the processor),
packages that only log or that the run has no use for, and a name that left SciPy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import runpy
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


class OnProcessor(TorchFunctionMode):
    """Whatever asks for CUDA gets the processor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        moved = [torch.device("cpu") if _is_cuda(one) else one for one in args]
        named = {key: torch.device("cpu") if _is_cuda(one) else one for key, one in (kwargs or {}).items()}
        return func(*moved, **named)


def _is_cuda(value: Any) -> bool:
    return (isinstance(value, str) and value.startswith("cuda")) or (isinstance(value, torch.device) and value.type == "cuda")


def stand_in(name: str, **content: Any) -> None:
    """A module of that name, if there is none."""
    try:
        importlib.import_module(name)
    except ImportError:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
        for key, value in content.items():
            setattr(sys.modules[name], key, value)


class Anything:
    """Takes every call."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Anything:
        return self

    def __getattr__(self, name: str) -> Anything:
        return self


class Node(dict[str, Any]):
    """Settings with attributes, as yacs has them."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class FirstOnes:
    """Clusters around the first points: the run is about files, not about clusters."""

    def __init__(self, n_clusters: int, mode: str) -> None:
        self.n_clusters = n_clusters

    def fit_predict(self, points: torch.Tensor) -> torch.Tensor:
        self.centroids = points[torch.arange(self.n_clusters) % len(points)]
        return torch.zeros(len(points), dtype=torch.long)


def wandb() -> types.SimpleNamespace:
    """What their programs call of it; the settings come back as they were given."""
    made = types.SimpleNamespace(run=types.SimpleNamespace(name="run"), config=types.SimpleNamespace(_items={}))

    def init(config: Any, **_: Any) -> None:
        made.config._items = dict(config if isinstance(config, dict) else vars(config))

    made.init = init
    made.log = made.Histogram = made.Image = made.finish = lambda *_, **__: None
    return made


def few_images(path: Path) -> type:
    """torchvision's CIFAR10 with the images in a file."""
    from PIL import Image

    stored = np.load(path)

    class Few(torch.utils.data.Dataset[Any]):
        classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

        def __init__(self, root: str, train: bool = True, transform: Any = None, download: bool = False) -> None:
            self.data = np.ascontiguousarray(stored["images"].transpose(0, 2, 3, 1))
            self.targets = stored["labels"].tolist()
            self.transform = transform

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            image = Image.fromarray(self.data[index])
            return (self.transform(image) if self.transform else image), self.targets[index]

    return Few


def prepare(home: Path, images: Path, *folders: str) -> None:
    """Everything that is missing here, and their folders on the path."""
    import scipy.ndimage
    import torchvision.datasets

    torchvision.datasets.CIFAR10 = few_images(images)  # type: ignore[misc]
    stand_in("scipy.ndimage.interpolation", rotate=scipy.ndimage.rotate)
    stand_in("wandb", **vars(wandb()))
    stand_in("yacs.config", CfgNode=Node)
    stand_in("kornia", enhance=None)
    stand_in("efficientnet_pytorch", EfficientNet=Anything)
    stand_in("fast_pytorch_kmeans", KMeans=FirstOnes)
    sys.path[:0] = [str(home / one) for one in folders] or [str(home)]


def small_networks(module: Any) -> None:
    """Theirs are 128 filters wide."""
    _, *rest = module.get_default_convnet_setting()
    module.get_default_convnet_setting = lambda: (8, *rest)


def run_script(path: Path, *arguments: str) -> None:
    """A program of theirs as they start it."""
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def condensation(home: Path, out: Path, program: str, method: str, ipc: str, runs: str) -> None:
    """DC (``main.py``) or DM (``main_DM.py``): real images at the start, and no step that changes them."""
    small_networks(importlib.import_module("utils"))
    common = ["--ipc", ipc, "--num_exp", runs, "--num_eval", "1", "--Iteration", "0", "--init", "real", "--lr_img", "0"]
    common += ["--batch_real", "4", "--data_path", str(out), "--save_path", str(out)]
    run_script(home / program, *common, *(["--epoch_eval_train", "1"] if method == "DM" else ["--method", method]))


def dream(home: Path, out: Path, factor: str, decode: str, ipc: str) -> None:
    """DREAM's ``condense``, until it has written the first file, without the steps that change the images."""
    sys.argv = ["condense.py", "-d", "cifar10", "-f", factor, "--decode_type", decode, "--ipc", ipc, "--f2_init", "random"]
    sys.argv += ["--init", "random", "--test", "--n_data", "0", "--niter", "2", "--inner_loop", "1", "--lr_img", "0"]
    sys.argv += ["--width", "0.05", "--batch_real", "2", "--match", "grad", "--workers", "0", "--tag", "x"]
    settings = importlib.import_module("argument").args
    condense = importlib.import_module("condense")
    settings.save_dir = str(out)
    # The steps change nothing, and theirs take a minute.
    condense.diffaug = lambda settings: (lambda images: images, lambda images: images)
    condense.matchloss = lambda settings, real, made, *_: made.sum()

    class DoneError(Exception): ...

    def logger(text: str) -> None:
        if (out / "data40.pt").exists():
            raise DoneError

    (out / "args.txt").write_text(json.dumps(vars(settings), indent=2))
    with contextlib.suppress(DoneError):
        condense.condense(settings, logger)


def dream_decode(home: Path, out: Path, factor: str, decode: str) -> None:
    """What their ``test.py`` makes of ``stored.npz``."""
    sys.argv = ["test.py"]
    test: Any = importlib.import_module("test")
    test.save_img = lambda *_, **__: None
    stored = np.load(out / "stored.npz")
    settings = argparse.Namespace(nclass=int(stored["labels"].max()) + 1, factor=int(factor), decode_type=decode)
    settings.batch_syn_max, settings.dataset = 128, "cifar10"
    images, labels = test.decode(settings, torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"]))
    np.savez(out / "decoded.npz", images=images.numpy(), labels=labels.numpy())


def write_expert(utils: Any, out: Path, zca: str) -> None:
    """A buffer with one expert, trained in three steps until it knows the images (if they are normalised)."""
    folder = out / "buffers" / f"CIFAR10{'' if zca == 'zca' else '_NO_ZCA'}" / "ConvNet"
    folder.mkdir(parents=True)
    network = utils.get_network("ConvNet", 3, 10, (32, 32), dist=False)
    stored = np.load(out / "real.npz")
    images, labels = torch.from_numpy(stored["images"]).float().div(255).sub(0.5).div(0.2), torch.from_numpy(stored["labels"])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    steps = []
    for _ in range(4):
        steps.append([one.detach().clone() for one in network.parameters()])
        for _ in range(15):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
    torch.save([steps], folder / "replay_buffer_0.pt")


def mtt(home: Path, out: Path, ipc: str, zca: str) -> None:
    """MTT's ``distill.py`` for no more than one step, which does not change the images."""
    utils = importlib.import_module("utils")
    small_networks(utils)
    write_expert(utils, out, zca)
    arguments = ["--ipc", ipc, "--num_eval", "1", "--epoch_eval_train", "1", "--Iteration", "0", "--lr_img", "0"]
    arguments += ["--syn_steps", "1", "--expert_epochs", "1", "--max_start_epoch", "2", "--buffer_path", str(out / "buffers")]
    os.chdir(out)
    run_script(home / "distill.py", *arguments, *(["--zca"] if zca == "zca" else []))


def datm(home: Path, out: Path, ipc: str, zca: str) -> None:
    """DATM's ``distill/DATM.py``, likewise; the labels are what the expert says of the images."""
    torch.cuda.is_available = lambda: False
    utils = importlib.import_module("utils.utils_baseline")
    small_networks(utils)
    write_expert(utils, out, zca)
    settings = dict(importlib.import_module("utils.cfg").CFG)
    settings |= {"ipc": int(ipc), "num_eval": 1, "epoch_eval_train": 1, "Iteration": 0, "lr_img": 0.0, "zca": zca == "zca"}
    settings |= {"syn_steps": 1, "expert_epochs": 1, "max_start_epoch": 2, "buffer_path": str(out / "buffers")}
    settings |= {"pix_init": "real", "Sequential_Generation": False, "parall_eva": True, "lr_y": 0.0, "lr_lr": 0.0}
    os.chdir(out)
    importlib.import_module("distill.DATM").main(argparse.Namespace(**settings))


def dd_ranking(home: Path, out: Path, kind: str) -> None:
    """DD-Ranking's training and evaluation on the tensors in ``out/set``; its test images are those in the file.

    Its whole ``compute_metrics`` cannot end: for hard labels it notes every score twice, and pandas refuses the table.
    """
    metrics = importlib.import_module(f"ddranking.metrics.{kind}_label")
    images, labels = (torch.load(out / "set" / f"{one}.pt", map_location="cpu") for one in ("images", "labels"))
    settings: dict[str, Any] = {"dataset": "CIFAR10", "real_data_path": str(out), "ipc": len(images) // 10, "num_eval": 1}
    settings |= {"model_name": "ConvNet-3", "num_epochs": 20, "num_workers": 0, "device": "cpu", "dist": False}
    settings |= {"step_size": 15, "data_aug_func": None, "save_path": str(out / "scores" / "s.csv")}
    network = metrics.build_model(model_name="ConvNet-3", num_classes=10, im_size=(32, 32), pretrained=False, device="cpu")
    if kind == "hard":
        made = metrics.LabelRobustScoreHard(**settings)
        accuracy = made._compute_hard_label_metrics(network, images, None, 0.01, labels, mode="syn")
    else:
        metrics.get_pretrained_model_path = lambda *_: []
        loss = {"temperature": 1.0, "scale_loss": False}
        made = metrics.LabelRobustScoreSoft(**settings, soft_label_criterion="sce", loss_fn_kwargs=loss, teacher_model_names=[])
        accuracy = made._compute_soft_label_metrics(network, images, None, 0.01, labels)
        entropy = metrics.SoftCrossEntropyLoss(**loss)(labels, labels)  # what it makes of the labels themselves
        np.savez(out / "entropy.npz", entropy=float(entropy))
    real = torch.stack([one for one, _ in made.dst_train])
    np.savez(out / "scores.npz", accuracy=float(accuracy), real=real.numpy())


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # many small steps
    program, *paths = sys.argv[1:5]
    home, images, out = (Path(one).resolve() for one in paths)
    arguments = sys.argv[5:]
    folders = {"datm": ("", "distill")}.get(program, ())
    prepare(home, images, *folders)
    calls = {"dream": dream, "dream-decode": dream_decode, "mtt": mtt, "datm": datm, "dd-ranking": dd_ranking}
    with OnProcessor():
        if program in ("main.py", "main_DM.py"):
            condensation(home, out, program, *arguments)
        else:
            calls[program](home, out, *arguments)


if __name__ == "__main__":
    main()
