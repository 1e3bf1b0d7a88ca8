"""What recording training steps saves on a GPU: the same training with steps as they are and with recorded ones.

    PYTHONPATH=.:cli:adapters python benchmarks/gpu_training.py [--images 20000] [--steps 480]

Random images of 32 pixels, bf16, recipe ``paper``. Images a second are those of the last epoch but one, so that neither warming
up nor recording nor the last evaluation count; the loss shows that both learn the same.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from training import images

from dqas_plugin import training
from dqas_plugin.data import ImageDataset
from dqas_plugin.models import convnet3, resnet18
from dqas_plugin.precision import Build
from dqas_plugin.recipes import recipe
from dqas_plugin.training import EpochReport, train


def speed(build: Build, data: ImageDataset, batch: int, steps: int, *, recorded: bool) -> tuple[float, float, float]:
    """Images a second, seconds altogether, last loss."""
    training._RECORD_STEPS = 50 if recorded else steps + 1
    reports: list[EpochReport] = []
    how = recipe("paper").with_(iterations=steps, batch=batch, lr=0.01)
    started = time.perf_counter()
    train(build, data, how, 0, device="cuda", on_epoch=reports.append)
    total = time.perf_counter() - started
    first, last = reports[-3:-1]
    return (last.step - first.step) * batch / (last.seconds - first.seconds), total, reports[-1].loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=480, help="of each training: at least three epochs")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here")
    data = images(None, options.images)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    print(f"{'':9} {'batch':>5} {'as they are':>12} {'recorded':>10} {'ratio':>6}   loss, as they are and recorded")
    for name, build, batch in (("resnet18", resnet18, 128), ("resnet18", resnet18, 16), ("convnet3", convnet3, 128)):
        part = data.subset(range(min(len(data), options.steps * batch // 4)))
        speed(build, part, batch, options.steps, recorded=True)  # what is loaded and set up on first use
        plain, fast = (speed(build, part, batch, options.steps, recorded=one) for one in (False, True))
        losses = f"{plain[2]:.4f}, {fast[2]:.4f}"
        print(f"{name:9} {batch:5} {plain[0]:10.0f}/s {fast[0]:8.0f}/s {fast[0] / plain[0]:6.1f}   {losses}", flush=True)


if __name__ == "__main__":
    main()
