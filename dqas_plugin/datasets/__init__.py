"""Built-in datasets. They come in through the same hook as anybody's plugin."""

from __future__ import annotations

from collections.abc import Callable

from dqas_plugin.datasets import cifar, digits, fashion_mnist, folder, parquet, shapes, tiny_imagenet
from dqas_plugin.hookspecs import hookimpl


@hookimpl
def dqas_register_datasets(register: Callable[..., None]) -> None:
    """Register the built-in datasets."""
    register("digits", digits.load, title="scikit-learn's 8x8 digits, embedded: 1,797 images, 10 classes")
    register("shapes", shapes.load, title="generated patterns: easy classes of one mode, hard ones of many")
    register("cifar10", cifar.load_cifar10, title="CIFAR-10: 60,000 colour images of 32x32, 10 classes")
    register("cifar100", cifar.load_cifar100, title="CIFAR-100: 60,000 colour images of 32x32, 100 classes")
    register("fashion-mnist", fashion_mnist.load, title="Fashion-MNIST: 70,000 grey images of 28x28, 10 classes")
    register("tiny-imagenet", tiny_imagenet.load, title="Tiny ImageNet: 110,000 colour images of 64x64, 200 classes")
    register("folder", folder.load, title="image files, one folder per class", takes_path=True)
    register("parquet", parquet.load, title="parquet in the Hugging Face column layout", takes_path=True)
