"""Image folders that no textbook has: one class, a thousand, black pictures, names that break tables; and what should come of them.

The short tests and ``stress/odd.py`` share them, so that whatever is registered meets all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dqas_plugin.plugins import plugins

Pixels = npt.NDArray[np.uint8]
SIDE = 8

NASTY = (
    "a|b",
    "<script>alert(1)</script>".replace("/", "\u2215"),
    "50%_$&#{}~^",
    '=HYPERLINK("x")',
    "-1+cmd|' 'C!A0",
    "line\nbreak\r\n",
    "\x1b[31mred\x07",
    "naïve 日本語 \u202eleft",
    "\\input{x}",
)
"""Class names that mean something to Markdown, HTML, LaTeX, spreadsheets and terminals; all are good names of folders."""


@dataclass(frozen=True)
class Odd:
    """A folder of images and what should come of it.

    Attributes:
        write: fills an empty folder with ``train/CLASS`` and ``test/CLASS``.
        options: of the dataset ``folder:``.
        aipc: a budget that it allows, in images a class.
        refused: words of the sentence that refuses it; empty: it works.
    """

    write: Callable[[Path], None]
    options: Mapping[str, int] | None = None
    aipc: int = 3
    refused: str = ""

    def arguments(self, folder: Path) -> list[str]:
        """How the command line names it."""
        found = ["--dataset", f"folder:{folder}"]
        for name, value in (self.options or {}).items():
            found += ["--dataset-option", f"{name}={value}"]
        return found


def pictures(count: int, label: int, side: int = SIDE, seed: int = 0, channels: int = 3) -> Iterator[Pixels]:
    """Noise around a pattern of the class, uint8 ``[side, side, channels]``."""
    pattern = np.random.default_rng(label).integers(60, 196, (side, side, channels))
    draws = np.random.default_rng([seed, label])
    for _ in range(count):
        yield np.clip(pattern + draws.normal(0, 40, pattern.shape), 0, 255).astype(np.uint8)


def classes(
    sizes: Sequence[int],
    names: Sequence[str] | None = None,
    *,
    side: int = SIDE,
    channels: int = 3,
    change: Callable[[Pixels, np.random.Generator], Pixels] = lambda pixels, draws: pixels,
    test: int = 2,
) -> Callable[[Path], None]:
    """A writer of PNG files, so many of each class, every picture changed."""

    def write(folder: Path) -> None:
        draws = np.random.default_rng(1)
        for label, size in enumerate(sizes):
            name = f"class {label:04d}" if names is None else names[label]
            for split, count in (("train", size), ("test", test)):
                where = folder / split / name
                where.mkdir(parents=True)
                for number, pixels in enumerate(pictures(count, label, side, seed=split == "test", channels=channels)):
                    Image.fromarray(change(pixels, draws).squeeze()).save(where / f"{number:04d}.png")

    return write


def one_file(make: Callable[[Pixels], Image.Image], name: str, every: int = 2, **save: object) -> Callable[[Path], None]:
    """Like ``classes((8, 8, 8))``, but every ``every``-th training file is what ``make`` makes of it, in the format of ``name``."""

    def write(folder: Path) -> None:
        classes((8, 8, 8))(folder)
        for path in sorted((folder / "train").rglob("*.png"))[::every]:
            with Image.open(path) as image:
                pixels = np.asarray(image)
            path.unlink()
            make(pixels).save(path.with_name(f"{path.stem}-{name}"), **save)

    return write


def _noise(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    return draws.integers(0, 256, pixels.shape, dtype=np.uint8)


def _black(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    return np.zeros_like(pixels)


def _same(pixels: Pixels, draws: np.random.Generator) -> Pixels:
    return np.arange(pixels.size, dtype=np.uint8).reshape(pixels.shape)


def _alpha(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.concatenate([pixels, pixels[..., :1]], axis=2))


def _grey_alpha(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., :2], "LA") if False else Image.fromarray(pixels[..., 0]).convert("LA")


def _turned(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6
    return image


def _mixed_sizes(folder: Path) -> None:
    classes((8, 8, 8))(folder)
    for place, path in enumerate(sorted(folder.rglob("*.png"))):
        side = (1, 8, 33, 512)[place % 4]
        with Image.open(path) as image:
            resized = image.resize((side, 2 * side))
        resized.save(path)


def _every_mode(folder: Path) -> None:
    classes((12, 12, 12))(folder)
    for place, path in enumerate(sorted((folder / "train").rglob("*.png"))):
        with Image.open(path) as image:
            image.load()
        mode = ("1", "L", "LA", "P", "RGB", "RGBA")[place % 6]
        image.convert(mode).save(path)


FOLDERS: Mapping[str, Odd] = {
    "plain": Odd(classes((8, 8, 8))),
    "one class": Odd(classes((12,))),
    "two classes": Odd(classes((8, 8))),
    "100 classes": Odd(classes((3,) * 100, test=1), aipc=2),
    "singles": Odd(classes((1, 1, 1, 1)), aipc=1),
    "some singles": Odd(classes((1, 12, 1, 12)), aipc=3),
    "pairs": Odd(classes((2, 2, 2)), aipc=1),
    "100:1": Odd(classes((200, 2, 20))),
    "black": Odd(classes((8, 8, 8), change=_black)),
    "identical": Odd(classes((8, 8, 8), change=_same)),
    "noise": Odd(classes((8, 8, 8), change=_noise)),
    "names": Odd(classes((6,) * len(NASTY), NASTY)),
    "1 px": Odd(classes((8, 8, 8), side=1)),
    "2 px": Odd(classes((8, 8, 8), side=2)),
    "5 px": Odd(classes((8, 8, 8), side=5)),
    "512 px": Odd(classes((3, 3), side=512, test=1), aipc=1),
    "grey": Odd(classes((8, 8, 8), channels=1)),
    "rgba": Odd(one_file(_alpha, "alpha.png")),
    "grey alpha": Odd(one_file(_grey_alpha, "alpha.png")),
    "palette": Odd(one_file(lambda pixels: Image.fromarray(pixels).quantize(8), "palette.png")),
    "cmyk jpeg": Odd(one_file(lambda pixels: Image.fromarray(pixels).convert("CMYK"), "cmyk.jpg")),
    "turned by exif": Odd(one_file(_turned, "turned.jpg", exif=b"")),
    "every mode": Odd(_every_mode),
    "mixed sizes": Odd(_mixed_sizes, refused="make them one size"),
    "mixed sizes, resized": Odd(_mixed_sizes, options={"size": SIDE}),
    "16 bits": Odd(one_file(lambda pixels: Image.fromarray(pixels[..., 0].astype(np.uint16) * 256), "deep.png"), refused="8 bits"),
}
"""Folders by name."""


def methods() -> list[str]:
    """Every registered method and every variant of it that needs no program or file of somebody else's."""
    found = []
    for name, selector in plugins().selectors.items():
        if not selector.version and name != "distilled-family":
            found += [name, *(f"{name}:{variant}" for variant in selector.variants)]
    return found
