"""Harmonic inpainting against a sparse direct solver, and against surfaces that are known."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from dqas_plugin.errors import UserError
from dqas_plugin.quantization.harmonic import fill, harmonic
from dqas_plugin.quantization.patches import kept, pixel_mask

Shape = tuple[int, int, int]


def pictures(count: int, shape: Shape, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8))


def random_keep(count: int, patches: int, rate: float, seed: int = 1) -> torch.Tensor:
    return kept(torch.from_numpy(np.random.default_rng(seed).random((count, patches))), rate)


def literal(image: npt.NDArray[np.uint8], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Every missing pixel is the mean of its neighbours inside the image: one large system, as scipy solves it."""
    _, height, width = image.shape
    matrix = sparse.lil_matrix((height * width, height * width))
    for row in range(height):
        for column in range(width):
            here = row * width + column
            near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            near = [(r, c) for r, c in near if 0 <= r < height and 0 <= c < width]
            matrix[here, here] = 1 if known[row, column] else len(near)
            if not known[row, column]:
                for r, c in near:
                    matrix[here, r * width + c] = -1
    right = np.where(known, image.astype(np.float64), 0).reshape(len(image), -1).T
    return np.asarray(spsolve(matrix.tocsc(), right)).reshape(height * width, -1).T.reshape(image.shape)


def rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.floor(values + 0.5 + 1e-6).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75, 0.98])
@pytest.mark.parametrize(("shape", "patches"), [((3, 16, 16), 64), ((1, 8, 12), 6), ((1, 12, 8), 24), ((3, 16, 16), 256)])
def test_it_is_the_solution(shape: Shape, patches: int, rate: float) -> None:
    images = pictures(4, shape)
    keep = random_keep(4, patches, min(rate, 1 - 1 / patches))
    found = harmonic(images, keep).numpy()
    known = pixel_mask(keep, shape).numpy()
    for index in range(4):
        expected = literal(images[index].numpy(), known[index])
        np.testing.assert_array_equal(found[index], rounded(expected))


def test_any_pixels() -> None:
    """Holes of any form, on the edge and in corners."""
    shape = (3, 9, 7)
    images = pictures(12, shape)
    known = torch.from_numpy(np.random.default_rng(5).random((12, 9, 7)) < 0.3)
    known[0] = False
    known[0, 4, 3] = True
    found = fill(images, known).numpy()
    for index in range(12):
        np.testing.assert_array_equal(found[index], rounded(literal(images[index].numpy(), known[index].numpy())))
    np.testing.assert_array_equal(found[0], np.broadcast_to(images[0, :, 4:5, 3:4].numpy(), shape))


def test_visible_patches_stay_and_dropped_ones_are_not_read() -> None:
    images = pictures(6, (3, 16, 16))
    before = images.clone()
    keep = random_keep(6, 16, 0.5)
    known = pixel_mask(keep, (3, 16, 16))[:, None].expand_as(images)
    found = harmonic(images, keep)
    assert torch.equal(images, before)
    assert found.dtype == torch.uint8
    assert torch.equal(found[known], images[known])
    assert not torch.equal(found, images)
    assert torch.equal(harmonic(torch.where(known, images, 99), keep), found)


def test_a_slope_comes_back() -> None:
    """A linear ramp solves Laplace's equation where the hole does not touch the edge."""
    row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    ramp = (7 * row + 5 * column).to(torch.uint8)[None, None]
    keep = torch.ones(1, 16, dtype=torch.bool)
    keep[0, [5, 6, 9]] = False
    assert torch.equal(harmonic(ramp, keep), ramp)


def test_halves_go_up_whatever_the_rounding_errors() -> None:
    images = torch.zeros(1, 1, 4, 20, dtype=torch.uint8)
    images[..., 10:] = 1
    known = torch.zeros(1, 4, 20, dtype=torch.bool)
    known[..., 0] = known[..., 19] = True
    images[..., 0], images[..., 19] = 0, 19  # a ramp of whole numbers ...
    assert fill(images, known)[0, 0, 2].tolist() == list(range(20))
    known[..., 1:19:2] = True
    images[..., 1:19:2] = (torch.arange(1, 19, 2) + 1).to(torch.uint8)  # ... then 0, 2, 4 and between them 3, 5 ...
    found = fill(images, known)[0, 0, 1, 2:18:2].tolist()
    assert found == [3, 5, 7, 9, 11, 13, 15, 17]
    images[..., 1:19:2] += (torch.arange(9) % 2).to(torch.uint8)  # neighbours differ by 1 or 3: halves
    assert fill(images, known)[0, 0, 3, 2:18:2].tolist() == [4, 6, 8, 10, 12, 14, 16, 18]


def test_all_kept_is_the_image() -> None:
    images = pictures(3, (3, 8, 8))
    assert torch.equal(harmonic(images, torch.ones(3, 16, dtype=torch.bool)), images)
    assert harmonic(images[:0], torch.ones(0, 16, dtype=torch.bool)).shape == (0, 3, 8, 8)


def test_views_and_blocks_of_images() -> None:
    """More images than a task has, not contiguous, with other masks: each as if alone."""
    images = pictures(40, (3, 64, 128)).permute(0, 1, 3, 2)
    keep = random_keep(40, 32, 0.25)
    found = harmonic(images, keep)
    alone = torch.cat([harmonic(images[i : i + 1].contiguous(), keep[i : i + 1]) for i in range(40)])
    assert torch.equal(found, alone)


def test_mistakes() -> None:
    images = pictures(2, (3, 8, 8))
    keep = torch.ones(2, 16, dtype=torch.bool)
    keep[1] = False
    with pytest.raises(UserError, match="without any kept pixel"):
        harmonic(images, keep)
    with pytest.raises(UserError, match="do not consist of 15 square patches"):
        harmonic(images, keep[:, :15])
    with pytest.raises(UserError, match="the mask of images"):
        fill(images, torch.ones(2, 8, 7, dtype=torch.bool))


def test_it_is_fast() -> None:
    """A quarter of 32-pixel images: 50,000 in seconds (3 s on one core); a tenth of the speed would still pass."""
    images, keep = pictures(5_000, (3, 32, 32)), random_keep(5_000, 64, 0.25)
    harmonic(images[:1], keep[:1])  # compiles
    started = time.process_time()
    harmonic(images, keep)
    assert time.process_time() - started < 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_come_back_there() -> None:
    images, keep = pictures(4, (3, 8, 8)), random_keep(4, 16, 0.25)
    assert torch.equal(harmonic(images.cuda(), keep.cuda()).cpu(), harmonic(images, keep))
