"""Image folders that no textbook has: one class, a thousand, black pictures, names that break tables; and what comes of them.

The short tests and ``stress/odd.py`` share them, so that whatever is registered meets all of them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from click.testing import CliRunner
from PIL import Image

from dqas_cli.main import cli
from dqas_plugin.plugins import plugins

Pixels = npt.NDArray[np.uint8]
Change = Callable[[Pixels, np.random.Generator], Pixels]
Write = Callable[[Path], None]
SIDE = 8

NASTY = (
    "a|b",
    "<script>alert(1)<\u2215script>",
    "50%_$&#{}~^",
    '=HYPERLINK("x")',
    "-1+cmd|' 'C!A0",
    "line\nbreak\r\n",
    "\x1b[31mred\x07",
    "naïve 日本語 \u202eleft",
    "\\input{x}",
    "![picture](x)",
    r"$\frac$",
)
"""Class names that mean something to Markdown, HTML, LaTeX, spreadsheets and terminals; all are good names of folders."""

OBEYED = "\x1b\x07\r\u202e"
"""Characters of them that a terminal obeys."""


@dataclass(frozen=True)
class Odd:
    """A folder of images and what should come of it.

    Attributes:
        write: fills an empty folder with ``train/CLASS`` and ``test/CLASS``.
        options: of the dataset ``folder:``.
        aipc: a budget that it allows, in images a class.
        refused: words of the sentence that refuses it whatever is asked; empty: it works.
        heavy: it takes long, so that a few methods will do.
        alike: what is odd is over once its files are read, so that a few methods will do.
    """

    write: Write
    options: Mapping[str, int] = field(default_factory=dict)
    aipc: int = 3
    refused: str = ""
    heavy: bool = False
    alike: bool = False

    def arguments(self, folder: Path) -> list[str]:
        """How the command line names it, and a short training."""
        found = ["--dataset", f"folder:{folder}", "--device", "cpu", "--iterations", "3"]
        for name, value in self.options.items():
            found += ["--dataset-option", f"{name}={value}"]
        return found


ALLOWED = (
    "too few for 10 bins",
    "bins need at least",
    "too few to hold some out",
    "leaves 3 of 4 images",
    "at two budgets",
    "need two budgets",
    "with adaptive class counts",
    "patch",
)
"""Words of the sentences that may refuse a method, an allocator or a picture on a folder that works otherwise."""


def outcome(arguments: list[str]) -> tuple[str, str]:
    """What came of a command, and what it said.

    ``ok``; ``refused``: one sentence and status 2; ``failed``: one sentence and status 1; ``raw``: it printed what a terminal
    obeys; ``nan``: it printed numbers that are none; ``crash``: anything else.
    """
    result = CliRunner().invoke(cli, arguments)
    text = result.stdout + result.stderr
    errors = [one for one in result.stderr.splitlines() if one.startswith("dqas: error: ")]
    if any(one in text for one in OBEYED):
        return "raw", repr(text)
    if {"nan", "inf"} & set(text.lower().replace("±", " ").split()):
        return "nan", text
    if result.exit_code == 0:
        return "ok", text
    status = {1: "failed", 2: "refused"}.get(result.exit_code)
    if status and len(errors) == 1 and "fault of the program" not in errors[0]:
        return status, errors[0]
    trace = "".join(traceback.format_exception(result.exception)) if result.exception else ""
    return "crash", result.stderr + trace


def pictures(count: int, label: int, side: int, seed: int, channels: int) -> Iterator[Pixels]:
    """Noise around a pattern of the class, uint8 ``[side, side, channels]``."""
    pattern = np.random.default_rng(label).integers(60, 196, (side, side, channels))
    draws = np.random.default_rng([seed, label])
    for _ in range(count):
        yield np.clip(pattern + draws.normal(0, 40, pattern.shape), 0, 255).astype(np.uint8)


def classes(
    sizes: Sequence[int],
    names: Sequence[str] = (),
    *,
    side: int = SIDE,
    channels: int = 3,
    change: Change = lambda pixels, draws: pixels,
    test: int = 2,
) -> Write:
    """A writer of PNG files: so many of each class for training and ``test`` to test on, each picture changed."""

    def write(folder: Path) -> None:
        draws = np.random.default_rng(1)
        for label, size in enumerate(sizes):
            name = names[label] if names else f"class {label:04d}"
            for split, count in (("train", size), ("test", test)):
                where = folder / split / name
                where.mkdir(parents=True)
                made = pictures(count, label, side, int(split == "test"), channels)
                for number, pixels in enumerate(made):
                    changed = change(pixels, draws)
                    Image.fromarray(changed[..., 0] if channels == 1 else changed).save(where / f"{number:04d}.png")

    return write


def redone(make: Callable[[Image.Image, int], tuple[Image.Image, str]]) -> Write:
    """A writer of three classes, of whose training files every second is replaced by an image under another ending.

    Args:
        make: from the image and its number to the new one and the ending.
    """

    def write(folder: Path) -> None:
        classes((8, 8, 8))(folder)
        for number, path in enumerate(sorted((folder / "train").rglob("*.png"))[::2]):
            with Image.open(path) as image:
                image.load()
            path.unlink()
            changed, ending = make(image, number)
            exif = changed.getexif()
            changed.save(path.with_suffix(ending), **({"exif": exif} if exif else {}))

    return write


def _noise(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    return draws.integers(0, 256, pixels.shape, dtype=np.uint8)


def _black(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    return np.zeros_like(pixels)


def _same(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    return np.arange(pixels.size, dtype=np.uint8).reshape(pixels.shape)


def _in_mode(mode: str, ending: str = ".png") -> Write:
    return redone(lambda image, number: (image.convert(mode), ending))


def _turned(image: Image.Image, number: int) -> tuple[Image.Image, str]:
    image.getexif()[0x0112] = 6  # orientation: a quarter turn
    return image, ".jpg"


def _deep(image: Image.Image, number: int) -> tuple[Image.Image, str]:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256), ".png"


def _every_mode(image: Image.Image, number: int) -> tuple[Image.Image, str]:
    mode, ending = [("1", ".png"), ("L", ".bmp"), ("LA", ".png"), ("P", ".gif"), ("RGB", ".ppm"), ("RGBA", ".tif")][number % 6]
    return image.convert(mode), ending


def _many_sizes(image: Image.Image, number: int) -> tuple[Image.Image, str]:
    side = (1, 8, 33, 512)[number % 4]
    return image.resize((side, 2 * side)), ".png"


FOLDERS: Mapping[str, Odd] = {
    "plain": Odd(classes((20, 20, 20))),
    "one class": Odd(classes((12,))),
    "two classes": Odd(classes((8, 8))),
    "100 classes": Odd(classes((3,) * 100, test=1), aipc=2, heavy=True),
    "1,000 classes": Odd(classes((3,) * 1000, test=1, side=2), aipc=2, heavy=True),
    "singles": Odd(classes((1, 1, 1, 1)), aipc=1),
    "some singles": Odd(classes((1, 12, 1, 12))),
    "pairs": Odd(classes((2, 2, 2)), aipc=1),
    "100 to 1": Odd(classes((200, 2, 20))),
    "black": Odd(classes((8, 8, 8), change=_black)),
    "identical": Odd(classes((8, 8, 8), change=_same)),
    "noise": Odd(classes((40, 40, 40), change=_noise)),
    "names": Odd(classes((6,) * len(NASTY), NASTY)),
    "1 px": Odd(classes((8, 8, 8), side=1)),
    "2 px": Odd(classes((8, 8, 8), side=2)),
    "5 px": Odd(classes((8, 8, 8), side=5)),
    "512 px": Odd(classes((3, 3), side=512, test=1), aipc=1, heavy=True),
    "grey": Odd(classes((8, 8, 8), channels=1)),
    "rgba": Odd(_in_mode("RGBA"), alike=True),
    "grey with alpha": Odd(_in_mode("LA"), alike=True),
    "palette": Odd(_in_mode("P"), alike=True),
    "cmyk jpeg": Odd(_in_mode("CMYK", ".jpg"), alike=True),
    "turned by exif": Odd(redone(_turned), alike=True),
    "every mode": Odd(redone(_every_mode), alike=True),
    "mixed sizes": Odd(redone(_many_sizes), refused="make them one size", alike=True),
    "mixed sizes, resized": Odd(redone(_many_sizes), options={"size": SIDE}, alike=True),
    "16 bits": Odd(redone(_deep), refused="more than 8 bits a channel", alike=True),
}
"""Folders by name."""


def methods() -> list[str]:
    """Every registered method that needs no program or file of somebody else's, and every variant that is not its default."""
    found = []
    for name, selector in plugins().selectors.items():
        if selector.version or name == "distilled-family":
            continue
        usual = selector.settings({})
        others = [variant for variant, options in selector.variants.items() if selector.settings(options) != usual]
        found += [name, *(f"{name}:{variant}" for variant in others)]
    return found
