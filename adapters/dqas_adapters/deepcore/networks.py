"""DeepCore's networks and training settings as ours, for what an allocator trains inside its benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dqas_plugin.errors import UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.models import Network, Shape
from dqas_plugin.plugins import plugins
from dqas_plugin.recipes import Recipe
from dqas_plugin.recipes import recipe as named_recipe

MODEL = "deepcore-network"
"""What its networks are called among ours: ``deepcore-network:ResNet18@DIGEST``."""

MIRRORED = ("CIFAR10", "CIFAR100", "ImageNet")
"""The datasets whose images its benchmark crops and mirrors in training; all others it leaves as they are."""

_OTHER_OPTIMIZER = "fast"  # our recipe where theirs does not train by SGD


class Borrowed(Network):
    """One of DeepCore's networks with the surface of ours.

    Args:
        channels: channels of the images.
        body: its network.

    Raises:
        UserError: if its last layer is not linear.
    """

    def __init__(self, channels: int, body: Any) -> None:
        last = body.get_last_layer()
        if not isinstance(last, nn.Linear):
            raise UserError(
                f"DeepCore's {type(body).__name__} ends in a {type(last).__name__}, not a linear layer: name another"
            )
        super().__init__(channels, last)
        self.body = body
        body.embedding_recorder.record_embedding = True  # its wide ResNets lose the argument of that name

    def features(self, x: Tensor) -> Tensor:
        """What its last layer sees, which its recorder keeps."""
        self.body.no_grad = not torch.is_grad_enabled()  # it sets the mode itself, and would make gradients where none are
        self.body(x.clone(memory_format=torch.contiguous_format))  # contiguous() leaves the strides of grey images alone
        found: Tensor = self.body.embedding_recorder.embedding
        self.body.embedding_recorder.embedding = None  # no batch is kept, and the network can be copied
        return found.flatten(1)

    def to(self, *args: Any, memory_format: Any = None, **kwargs: Any) -> Any:
        """As of any module, except that channels stay first: some of its networks flatten with ``view``."""
        return super().to(*args, **kwargs)


@contextmanager
def networks_of(nets: ModuleType) -> Iterator[Callable[[str], str]]:
    """Inside, its networks are models of ours; the value says what one of them is called.

    Args:
        nets: its package ``deepcore.nets``.
    """
    plugin = _Networks(nets)
    plugins().register(plugin, MODEL)
    try:
        yield plugin.called
    finally:
        plugins().unregister(plugin)


class _Networks:
    """The plugin that brings them."""

    def __init__(self, nets: ModuleType) -> None:
        self.nets = nets

    def called(self, name: str) -> str:
        """Our name of its network ``name``, with a digest of their source: what is cached belongs to that source."""
        digest = hashlib.blake2b(digest_size=6)
        for file in sorted(Path(str(self.nets.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes() + b"\0")
        return f"{MODEL}:{name}@{digest.hexdigest()}"

    def build(self, name: str, image_shape: Shape, num_classes: int) -> Network:
        """Its network of that name."""
        channels, height, width = image_shape
        make = vars(self.nets)[name.partition("@")[0]]
        return Borrowed(channels, make(channels, num_classes, im_size=(height, width)))

    @hookimpl
    def dqas_register_models(self, register: Callable[..., None]) -> None:
        """One model that takes a name."""
        register(MODEL, self.build, title="a network of DeepCore's benchmark", takes_name=True)


def recipe_of(args: Any) -> tuple[Recipe, str | None]:
    """How its benchmark trains, as a recipe, and what of it does not map (or None).

    Its loss is the plain one, so class counts are measured under it (``prior="empirical"``).

    Args:
        args: its command line, parsed.
    """
    augmented = args.dataset in MIRRORED
    if args.optimizer != "SGD":
        return named_recipe(_OTHER_OPTIMIZER).with_(crop=augmented, flip=augmented, prior="empirical"), (
            f"class counts are measured with SGD (recipe '{_OTHER_OPTIMIZER}'), not with {args.optimizer}"
        )
    recipe = Recipe(
        "deepcore",
        epochs=max(1, args.epochs),
        batch=args.train_batch,
        lr=args.lr,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        nesterov=args.nesterov,
        crop=augmented,
        flip=augmented,
        prior="empirical",
    )
    other = args.scheduler != "CosineAnnealingLR"
    return recipe, f"class counts are measured with a cosine schedule, not with {args.scheduler}" if other else None


def device_of(args: Any) -> str:
    """The device that its benchmark trains on, of several the first."""
    if args.device == "cuda" and args.gpu:
        return f"cuda:{args.gpu[0]}"
    return str(args.device)
