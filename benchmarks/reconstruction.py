"""How well dropped patches are rebuilt: harmonic inpainting against the small masked autoencoder.

PSNR of the dropped pixels of test images, none of which the autoencoder has seen, and the processor time that it takes. One
autoencoder is trained per drop rate on the training images (with random masks), or taken from the cache.

``--masks random`` drops random patches. ``--masks grad-cam`` drops what Grad-CAM of a proxy finds least informative, as DQ and
DQAS do: mostly borders and background, in large connected parts.

    python benchmarks/reconstruction.py                                # shapes; some minutes
    python benchmarks/reconstruction.py --masks grad-cam
    python benchmarks/reconstruction.py --dataset parquet:PATH --steps 250 --plain
    python benchmarks/reconstruction.py --dataset parquet:PATH --mae-weights mae_visualize_vit_large_ganloss.pth

``--plain`` also trains the autoencoder as published: it sees the kept patches alone and predicts pixels. ``--mae-weights``
adds one out of a file, which enlarges the images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.lookup import load_dataset, resolve_model
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.informativeness import grad_cam
from dqas_plugin.quantization.mae import MaskedAutoencoder, reconstruct
from dqas_plugin.quantization.mae_training import MaeProgress, psnr, random_masks, trained_mae
from dqas_plugin.quantization.mae_weights import load_mae
from dqas_plugin.quantization.patches import default_patch_size, kept, patch_count
from dqas_plugin.quantization.settings import MAE_STEPS
from dqas_plugin.recipes import recipe
from dqas_plugin.trained_signals import trained_network

RATES = (0.25, 0.5, 0.75)
MASKS = ("random", "grad-cam")
Rebuild = Callable[[Tensor, Tensor], Tensor]
Masks = Callable[[float], Tensor]
"""What is kept at a drop rate, bool ``[N, P]``."""


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    splits = load_dataset(options.dataset)
    _, height, width = splits.train.image_shape
    patch = options.patch or default_patch_size(height, width)
    every = max(1, len(splits.test) // options.images)
    tested = splits.test.subset(range(0, len(splits.test), every)[: options.images])
    images, masks = tested.images, chosen_masks(options, splits, tested, patch)
    patches = patch_count(splits.train.image_shape, patch)
    print(f"{options.dataset}: {len(images)} test images of {height}x{width}, {patches} patches of {patch} pixels, "
          f"masks: {options.masks}")  # fmt: skip
    print(f"{options.steps} steps of training on {len(splits.train)} images, {options.threads} thread(s)\n")
    print(f"{'drop rate':>9}  {'method':<14} {'PSNR, dB':>8} {'better by':>9} {'s per 10,000':>12} {'training, s':>11}")
    for rate in options.rates:
        keep = masks(rate)
        harmonic(images[:2], keep[:2])  # compiled now
        base = line(rate, "harmonic", harmonic, images, keep)
        best, winner = base, "harmonic"
        for name, rebuild, seconds in autoencoders(options, splits.train, patch, rate):
            found = line(rate, name, rebuild, images, keep, base, seconds)
            best, winner = max((best, winner), (found, name), key=lambda one: one[0])
        print(f"{'':>9}  winner: {winner}\n")


def chosen_masks(options: argparse.Namespace, splits: DatasetSplits, tested: ImageDataset, patch: int) -> Masks:
    if options.masks == "random":
        patches = patch_count(tested.image_shape, patch)
        return lambda rate: random_masks(len(tested), patches, rate, torch.Generator().manual_seed(options.seed))
    build, how = resolve_model(options.model), recipe(options.recipe)
    network, _ = trained_network(splits.train, options.model, build, how, options.seed)
    scores = grad_cam(network(), tested.images, tested.labels, patch).scores
    return lambda rate: kept(scores, rate)


def autoencoders(
    options: argparse.Namespace, data: ImageDataset, patch: int, rate: float
) -> Iterator[tuple[str, Rebuild, float]]:
    """Name, function and seconds of training of each."""
    for residual in (True, False) if options.plain else (True,):
        shared = {"seed": options.seed, "drop_rate": rate, "residual": residual}
        made = trained_mae(data, patch, steps=options.steps, on_progress=report(options.progress), **shared)
        name = "MAE, correcting" if residual else "MAE, plain"
        yield name, rebuilder(made.mae), made.seconds
    if options.mae_weights:
        yield options.mae_weights.stem[:14], rebuilder(load_mae(options.mae_weights), batch=16), 0.0


def rebuilder(mae: MaskedAutoencoder, batch: int = 256) -> Rebuild:
    return lambda images, keep: reconstruct(mae, images, keep, batch=batch)


def line(
    rate: float, name: str, rebuild: Rebuild, images: Tensor, keep: Tensor, base: float | None = None, seconds: float = 0.0
) -> float:
    started = time.process_time()
    rebuilt = rebuild(images, keep)
    each = (time.process_time() - started) / len(images) * 10_000
    found = psnr(images, rebuilt, keep)
    better = "" if base is None else f"{found - base:+.2f}"
    trained = f"{seconds:.0f}" if seconds else ""
    print(f"{rate:>9}  {name:<15}{found:>8.2f} {better:>9} {each:>12.2f} {trained:>11}", flush=True)
    return found


def report(wanted: bool) -> Callable[[MaeProgress], None] | None:
    if not wanted:
        return None
    return lambda one: print(f"    step {one.step} of {one.steps}: {one.psnr:.2f} dB, {one.seconds:.0f} s", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="shapes")
    parser.add_argument("--steps", type=int, default=MAE_STEPS, help="of the autoencoder's training")
    parser.add_argument("--masks", choices=MASKS, default="random", help="which patches are dropped")
    parser.add_argument("--model", default="convnet3-small", help="network of Grad-CAM")
    parser.add_argument("--recipe", default="quick", help="how it is trained")
    parser.add_argument("--images", type=int, default=2000, help="test images")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--plain", action="store_true", help="also the autoencoder as published")
    parser.add_argument("--mae-weights", type=Path)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
