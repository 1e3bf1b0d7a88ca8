"""Features of images from another network than the proxy: ``timm:NAME`` with its published weights, or with those of a file.

DeepCore takes the neighbours of Cal and the distances of k-Center from an ImageNet ResNet-18 at 224 pixels; this is the way to
do the same, or better.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.torch_files import read_torch

_NUMBERS = 2**23  # of the resized images of a batch: 32 MB
_WRAPPERS = ("state_dict", "model", "state_dict_ema")  # where checkpoints keep the weights


def resolve(text: str) -> Extractor:
    """The extractor that people call ``timm:NAME`` or ``timm:NAME@FILE``; its weights are read when they are needed.

    Raises:
        UserError: for a name that means nothing (with the nearest ones), or a file that is not there.
    """
    import timm

    kind, colon, rest = text.partition(":")
    name, at, file = rest.partition("@")
    if kind != "timm" or not colon or not name or (at and not file):
        raise UserError(f"features '{text}' mean nothing here: write proxy, timm:NAME or timm:NAME@FILE")
    architecture, dot, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("timm model", name, timm.list_models())
    if dot and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise unknown_name(f"weights of timm:{architecture}", tag, [one.partition(".")[2] for one in tagged])
    if file and not Path(file).is_file():
        raise UserError(f"there is no file {file} with weights of timm:{name}: check the path")
    return Extractor(name, Path(file) if file else None)


def extract(text: str, data: ImageDataset, *, device: torch.device | str = "cpu", batch: int | None = None) -> Iterator[Tensor]:
    """The features that the extractor ``text`` makes of every image: :func:`resolve`, then :meth:`Extractor.features`."""
    return resolve(text).features(data, device=device, batch=batch)


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network of timm without its last layer.

    Attributes:
        name: what timm calls it.
        file: where its weights are; None: the published ones, which timm downloads once.
    """

    name: str
    file: Path | None

    @cached_property
    def identity(self) -> list[str]:
        """What the features depend on; published weights go by their name: cached features need no download."""
        import timm

        described = [self.name, str(timm.__version__)]
        if self.file is None:
            return described
        try:
            with self.file.open("rb") as opened:
                return [*described, hashlib.file_digest(opened, "blake2b").hexdigest()]
        except OSError as error:
            raise UserError(f"cannot read {self.file} ({error.strerror}): check the path and its permissions") from error

    @property
    def width(self) -> int:
        """d, how many features an image has.

        Raises:
            UserError: if the weights cannot be had or do not fit, or the network does not give one row of numbers an image.
        """
        with torch.no_grad():
            result: Tensor = self.network.cpu()(torch.zeros(1, *self._size))
        if result.ndim != 2:
            raise UserError(f"timm:{self.name} gives maps instead of one row of features for an image: choose another model")
        return result.shape[1]

    @cached_property
    def network(self) -> nn.Module:
        """The network, in evaluation mode.

        Raises:
            UserError: if the weights cannot be had or do not fit.
        """
        import timm

        network: nn.Module
        if self.file is not None:
            network = _fresh(self.name)
            _fill(network, self.file, self.name)
            return network.eval()
        hub = logging.getLogger("huggingface_hub")
        level = hub.level
        hub.setLevel(logging.ERROR)  # what goes wrong is said below
        try:
            network = timm.create_model(self.name, pretrained=True, num_classes=0, in_chans=3)
        except Exception as error:  # no weights published, no network, a server's answer: whatever timm and the hub raise
            raise UserError(
                f"the weights of timm:{self.name} cannot be had ({type(error).__name__}): connect to the network, or give a "
                f"file as timm:{self.name}@FILE"
            ) from error
        finally:
            hub.setLevel(level)
        return network.eval()

    @property
    def _configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(getattr(self.network, "pretrained_cfg"))  # noqa: B009
        return found

    @property
    def _size(self) -> tuple[int, int, int]:
        _, height, width = self._configuration["input_size"]
        return 3, height, width

    def features(self, data: ImageDataset, *, device: torch.device | str = "cpu", batch: int | None = None) -> Iterator[Tensor]:
        """What its last layer would see of every image, in order, float32 ``[b, d]`` on the CPU.

        Images are resized (bilinear, antialiased) to the size the network was trained on and normalised as its images were.

        Args:
            data: the images; grey ones are repeated for each colour.
            device: where to compute.
            batch: images at a time; default: as many as take 32 MB once they are resized.

        Raises:
            UserError: if the weights cannot be had or do not fit, or the images have neither one channel nor three.
        """
        if data.image_shape[0] not in (1, 3):
            raise UserError(
                f"timm:{self.name} sees grey or colour images, not {data.image_shape[0]} channels: use features=proxy"
            )
        network = self.network.to(device)
        channels, height, width = self._size
        mean, std = (torch.tensor(self._configuration[key], device=device)[:, None, None] for key in ("mean", "std"))
        size = batch or max(1, _NUMBERS // (channels * height * width))
        for start in range(0, len(data), size):
            pixels = data.images[start : start + size].to(device).float().div_(255.0)
            pixels = functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True, align_corners=False)
            with torch.no_grad():
                found = network((pixels.expand(-1, channels, -1, -1) - mean) / std)
            yield found.float().cpu()


def _fresh(name: str) -> nn.Module:
    """The network without its last layer, with random weights that leave torch's generator alone."""
    import timm

    with torch.random.fork_rng(devices=[]):
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, in_chans=3)
    return network


def _fill(network: nn.Module, file: Path, name: str) -> None:
    """Load the weights of a file, of which nothing is executed; those of a last layer, for whatever classes, are left out."""
    found = _read(file)
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    try:
        missing, left = network.load_state_dict(found, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _unfit(file, name) from error
    heads = getattr(network, "pretrained_cfg")["classifier"]  # noqa: B009
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    ignored = tuple(f"{head.rpartition('.')[0] or head}." for head in heads)  # "head.": what the features need is not left
    if missing or not all(one.startswith(ignored) for one in left):
        raise _unfit(file, name)


def _read(file: Path) -> Any:
    """What is in the file, if it is plain tensors."""
    if file.suffix != ".safetensors":
        return read_torch(file, "weights")
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as error:  # a damaged or hostile file may raise anything
        raise UserError(f"{file} cannot be read as weights ({type(error).__name__}): give a file of plain tensors") from error


def _unfit(file: Path, name: str) -> UserError:
    return UserError(f"{file} does not hold the weights of timm:{name}: check the name, or take another file")
