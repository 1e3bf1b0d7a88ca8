"""Vectorised crops and mirroring against one image at a time with NumPy's padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.augment import Shifts, draw_shifts, padding, shift
from dqas_plugin.seeding import torch_generator


def one_at_a_time(images: torch.Tensor, shifts: Shifts, pad: int) -> torch.Tensor:
    """Pad by reflection, cut the window, mirror: the literal definition."""
    _, _, height, width = images.shape
    results = []
    for image, down, right, mirrored in zip(images.numpy(), shifts.down, shifts.right, shifts.mirrored, strict=True):
        padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        top, left = pad + int(down), pad + int(right)
        window = padded[:, top : top + height, left : left + width]
        results.append(window[:, :, ::-1] if mirrored else window)
    return torch.from_numpy(np.stack(results))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)),
    pad=st.integers(0, 6),
    seed=st.integers(0, 2**31),
)
def test_shift_is_pad_crop_mirror(shape: tuple[int, int, int, int], pad: int, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    count = shape[0]
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)
    shifts = Shifts(
        torch.randint(-pad, pad + 1, (count,), generator=draws),
        torch.randint(-pad, pad + 1, (count,), generator=draws),
        torch.randint(0, 2, (count,), generator=draws).bool(),
    )
    before = images.clone()
    result = shift(images, shifts)
    assert result.dtype == torch.uint8
    assert torch.equal(result, one_at_a_time(images, shifts, pad))
    assert torch.equal(images, before)


def test_drawn_shifts_over_several_chunks() -> None:
    images = torch.randint(0, 256, (2500, 1, 8, 8), dtype=torch.uint8, generator=torch_generator(0, "images"))
    shifts = draw_shifts(2500, 8, 8, crop=True, flip=True, generator=torch_generator(0, "shifts"))
    assert torch.equal(shift(images, shifts), one_at_a_time(images, shifts, padding(8)))


def test_offsets_are_uniform_and_coins_fair() -> None:
    shifts = draw_shifts(90_000, 32, 64, crop=True, flip=True, generator=torch_generator(3, "shifts"))
    for offsets, reach in ((shifts.down, 4), (shifts.right, 8)):
        shares = torch.bincount(offsets + reach, minlength=2 * reach + 1) / 90_000
        assert len(shares) == 2 * reach + 1
        assert shares == pytest.approx(1 / (2 * reach + 1), abs=0.005)
    assert float(shifts.mirrored.float().mean()) == pytest.approx(0.5, abs=0.01)
    together = torch.stack([shifts.down, shifts.right, shifts.mirrored]).double()
    assert torch.corrcoef(together).fill_diagonal_(0).abs().max() < 0.02


@pytest.mark.parametrize(("crop", "flip"), [(True, False), (False, True), (False, False)])
def test_what_is_switched_off_does_not_happen(crop: bool, flip: bool) -> None:
    shifts = draw_shifts(50, 16, 16, crop=crop, flip=flip, generator=torch_generator(0, "shifts"))
    assert bool(shifts.down.any() and shifts.right.any()) == crop
    assert bool(shifts.mirrored.any()) == flip


@pytest.mark.parametrize(("side", "expected"), [(8, 1), (28, 4), (32, 4), (64, 8), (4, 1), (1, 1)])
def test_padding_is_an_eighth(side: int, expected: int) -> None:
    assert padding(side) == expected
