"""ZCA whitening against its closed form, and against kornia, which trajectory matching uses."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import scipy.linalg
import torch
from PIL import Image

from dqas_adapters.distilled import whitening
from dqas_adapters.distilled.normalisation import TRAJECTORIES
from dqas_adapters.distilled.pixels import Scale, checked_values, normalised_scale, plain_scale, to_pixels
from dqas_adapters.distilled.whitening import Whitening, fit, whitening_of
from dqas_plugin import ImageDataset, UserError


def images(count: int = 200, channels: int = 3, size: int = 5) -> torch.Tensor:
    """Images whose pixels depend on each other, and one pixel that never changes."""
    draws = np.random.default_rng(0)
    mixing = draws.normal(size=(channels * size * size, channels * size * size)) / 4
    values = 128 + 40 * draws.normal(size=(count, len(mixing))) @ mixing
    made = np.clip(values, 0, 255).astype(np.uint8).reshape(count, channels, size, size)
    made[:, 0, 0, 0] = 7
    return torch.from_numpy(made)


@pytest.mark.parametrize("count", [200, 20])  # with fewer images than pixels the covariance is singular
@pytest.mark.parametrize("eps", [0.1, 0.001])
def test_closed_form(count: int, eps: float) -> None:
    data = images(count)
    values = data.flatten(1).double().numpy() / 255
    root = scipy.linalg.sqrtm(np.cov(values, rowvar=False) + eps * np.eye(75)).real
    found = fit(data, eps)
    assert np.abs(found.inverse.numpy() - root).max() < 1e-5
    assert np.abs(found.forward.numpy() - np.linalg.inv(root)).max() < 1e-5 / eps
    assert np.abs(found.mean.numpy() - values.mean(axis=0)).max() < 1e-6
    white = found.apply(data.float() / 255)
    assert white.shape == data.shape
    expected = (values - values.mean(axis=0)) @ np.linalg.inv(root)
    assert np.abs(white.flatten(1).numpy() - expected).max() < 1e-3
    assert torch.allclose(found.undo(white), data.float() / 255, atol=1e-4)


def test_large_images_are_fitted_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = fit(images())
    monkeypatch.setattr(whitening, "_DOUBLE", 10)
    rough = fit(images())
    assert 0 < (rough.inverse - exact.inverse).abs().max() < 1e-5


def test_parts_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(images())
    monkeypatch.setattr(whitening, "_CHUNK", 7)
    assert torch.allclose(fit(images()).inverse, whole.inverse, atol=1e-6)


def test_a_fit_is_kept(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    data = ImageDataset(images(), torch.zeros(200, dtype=torch.int64), ("a",), "some/train")
    first = whitening_of(data)
    assert (first.shape, first.count) == ((3, 5, 5), 200)

    def never(*_: object) -> Whitening:
        raise AssertionError

    monkeypatch.setattr(whitening, "fit", never)
    again = whitening_of(data)
    assert torch.equal(again.inverse, first.inverse)
    assert torch.equal(again.forward, first.forward)
    with pytest.raises(AssertionError):
        whitening_of(data.subset(np.arange(100)))
    with pytest.raises(UserError, match="some/train has 1 images, and whitening needs at least 2"):
        whitening_of(data.subset([0]))


def test_kornia_agrees() -> None:
    kornia = pytest.importorskip("kornia", reason="kornia is not installed")
    data = images(300)
    theirs = kornia.enhance.ZCAWhitening(eps=0.1, compute_inv=True)
    theirs.fit(data.float() / 255)
    white = theirs(data.float() / 255)
    ours = fit(data)
    assert torch.allclose(ours.apply(data.float() / 255), white, atol=1e-4)
    assert torch.allclose(ours.undo(white), theirs.inverse_transform(white), atol=1e-4)


def test_real_images_are_not_read_as_what_they_are_not(shared: Path) -> None:
    """Plain, normalised and whitened: each is refused as both others, also with the noise that an optimiser leaves."""
    file = pyarrow.parquet.ParquetFile(shared / "data" / "cifar10-jpeg" / "train-00000-of-00001.parquet")
    rows = next(file.iter_batches(1500)).to_pylist()
    column = next(name for name, value in rows[0].items() if isinstance(value, dict))
    large = np.stack([np.asarray(Image.open(io.BytesIO(one[column]["bytes"]))) for one in rows]).transpose(0, 3, 1, 2)
    real = torch.nn.functional.avg_pool2d(torch.from_numpy(large).float(), 2).round().to(torch.uint8)
    fitted, path = fit(real), Path("some.pt")
    values = real.float() / 255
    scales = {
        "plain": plain_scale(""),
        "normalised": normalised_scale(TRAJECTORIES["cifar10"], values, path, ""),
        "whitened": Scale(fitted.undo, "whitened", ""),
    }
    stored = {"plain": values, "normalised": TRAJECTORIES["cifar10"].apply(values), "whitened": fitted.apply(values)}
    draws = torch.Generator().manual_seed(0)
    for kind, images in stored.items():
        assert torch.equal(to_pixels(images, scales[kind]), real)
        noisy = images + images.std() * 0.5 * torch.randn(images.shape, generator=draws)
        for name, scale in scales.items():
            for one in (images, noisy):
                if name == kind:
                    assert len(checked_values(one, scale, path)) == 2
                else:
                    with pytest.raises(UserError, match=r"some\.pt: its values are"):
                        checked_values(one, scale, path)
