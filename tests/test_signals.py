"""Signals and views, implicit gradients against automatic differentiation, and the cache of proxy trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.recipes import Recipe
from dqas_plugin.signals import Signals

RECIPE = Recipe("tiny", iterations=6, batch=16, lr=0.05, precision="fp32", proxy_epochs=2)


def arrays(seed: int = 0, count: int = 30) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(count, 5)).astype(np.float32)
    return features, draws.normal(size=(count, 3)).astype(np.float32) * 2, draws.integers(0, 3, count)


def made(seed: int = 0) -> Signals:
    return Signals.from_arrays(*arrays(seed))


class TestFromArrays:
    def test_numpy_torch_and_lists_are_alike(self) -> None:
        features, logits, labels = arrays()
        for convert in (torch.from_numpy, np.ndarray.tolist, lambda one: one.astype(one.dtype.newbyteorder(">"))):
            found = Signals.from_arrays(convert(features), convert(logits), convert(labels))
            assert found.features is not None
            assert found.logits is not None
            assert found.features.dtype == found.logits.dtype == torch.float32
            assert found.labels.dtype == torch.int64
            assert np.array_equal(found.features.numpy(), features)
            assert np.array_equal(found.logits.numpy(), logits)
            assert np.array_equal(found.labels.numpy(), labels)
            assert (len(found), found.num_classes) == (30, 3)

    def test_memory_is_shared_where_the_type_fits(self) -> None:
        features, logits, labels = arrays()
        found = Signals.from_arrays(features, logits, labels)
        assert found.features is not None
        assert np.shares_memory(found.features.numpy(), features)

    @pytest.mark.parametrize("change", [lambda one: one[::-1], np.asfortranarray, lambda one: one.astype("f8")])
    def test_any_layout(self, change: Any) -> None:
        features, logits, labels = arrays()
        found = Signals.from_arrays(change(features), logits, labels)
        assert found.features is not None
        assert np.array_equal(found.features.numpy(), change(features).astype(np.float32))

    def test_read_only_arrays_give_no_warning(self) -> None:
        features, logits, labels = arrays()
        for one in (features, logits, labels):
            one.setflags(write=False)
        assert len(Signals.from_arrays(features, logits, labels)) == 30  # warnings are errors here

    def test_signals_may_be_absent(self) -> None:
        features, logits, labels = arrays()
        assert Signals.from_arrays(features, None, labels).num_classes == labels.max() + 1
        assert Signals.from_arrays(None, logits, labels).view(0).losses.ndim == 1
        bare = Signals.from_arrays(None, None, labels, num_classes=7)
        assert (bare.num_classes, len(bare.view(6))) == (7, 0)
        for name in ("features", "logits", "images", "probabilities", "losses", "gradients"):
            with pytest.raises(UserError, match="have no"):
                getattr(bare.view(0), name)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"features": np.zeros((29, 5))}, "30 labels"),
            ({"features": np.zeros((30, 0))}, "features must have one row"),
            ({"features": np.zeros(30)}, "features must have one row"),
            ({"features": np.full((30, 2), np.nan)}, "features are not finite"),
            ({"features": np.full((30, 2), 1e39)}, "features are not finite"),
            ({"features": np.full((30, 2), "x")}, "features must be numbers"),
            ({"features": np.zeros((30, 2), complex)}, "features must be numbers"),
            ({"logits": np.full((30, 3), np.inf)}, "logits are not finite"),
            ({"logits": np.zeros((30, 2))}, "0..1"),
            ({"logits": np.zeros((30, 3)), "num_classes": 4}, "3 columns for 4 classes"),
            ({"labels": np.zeros(30)}, "whole numbers"),
            ({"labels": np.zeros(30, bool)}, "whole numbers"),
            ({"labels": np.full(30, -1)}, "must lie in 0..2"),
            ({"labels": np.zeros((30, 1), int)}, "one whole number per sample"),
            ({"labels": []}, "one whole number per sample"),
            ({"images": np.zeros((30, 8, 8), np.uint8)}, "images must be uint8"),
            ({"images": np.zeros((30, 3, 8, 8), np.float32)}, "images must be uint8"),
            ({"images": np.zeros((29, 3, 8, 8), np.uint8)}, "images must be uint8"),
        ],
    )
    def test_mistakes_are_one_sentence(self, changes: dict[str, Any], message: str) -> None:
        features, logits, labels = arrays()
        labels[0] = 2
        given = {"features": features, "logits": logits, "labels": labels, **changes}
        with pytest.raises(UserError, match=message) as caught:
            Signals.from_arrays(given.pop("features"), given.pop("logits"), given.pop("labels"), **given)
        assert "\n" not in str(caught.value)


def test_read_only_memory_maps_are_not_copied(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.save(tmp_path / "features.npy", values)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    found = Signals.from_arrays(mapped, None, np.arange(30) % 3)
    assert found.features is not None
    assert found.features.data_ptr() == mapped.ctypes.data


def test_views_of_all_classes_are_the_views_of_each() -> None:
    whole = made()
    for candidates in (None, [3, 5, 6, 20, 21]):
        for label, view in enumerate(whole.views(candidates, seed=4, max_memory=99)):
            alone = whole.view(label, candidates)
            assert view.indices.tolist() == alone.indices.tolist()
            assert (view.label, view.seed, view.max_memory) == (label, 4, 99)
            assert view.whole.indices.tolist() == alone.whole.indices.tolist()


class TestView:
    def test_is_one_class_in_the_order_of_the_dataset(self) -> None:
        features, logits, labels = arrays()
        images = np.random.default_rng(1).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)
        whole = Signals.from_arrays(features, logits, labels, images)
        for label in range(3):
            view = whole.view(label)
            rows = np.flatnonzero(labels == label)
            assert view.label == label
            assert view.indices.dtype == np.int64
            assert view.indices.tolist() == rows.tolist() == whole.members(label).tolist()
            assert np.array_equal(view.features.numpy(), features[rows])
            assert np.array_equal(view.logits.numpy(), logits[rows])
            assert np.array_equal(view.images.numpy(), images[rows])
            assert view.labels.tolist() == [label] * len(rows) == [label] * len(view)

    def test_probabilities_and_losses_are_their_definitions(self) -> None:
        _, logits, labels = arrays()
        view = made().view(1)
        wide = logits[labels == 1].astype(np.float64)
        expected = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(view.probabilities.numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose(view.losses.numpy(), -np.log(expected[:, 1]), rtol=1e-4, atol=1e-6)

    def test_candidates_restrict_rows_and_whole(self) -> None:
        whole = made()
        candidates = np.array([29, 3, 4, 5, 3, 20, 21])  # any order, repeats do no harm
        for label in range(3):
            view = whole.view(label, candidates)
            assert view.indices.tolist() == [one for one in sorted(set(candidates)) if whole.labels[one] == label]
            assert view.whole.indices.tolist() == sorted(set(candidates))
            assert torch.equal(view.whole.labels, whole.labels[np.sort(np.unique(candidates))])

    def test_whole_is_every_sample_and_copies_nothing(self) -> None:
        whole = made()
        view = whole.view(2).whole
        assert view is whole.whole is view.whole
        assert view.features is whole.features
        assert view.indices.tolist() == list(range(30))
        with pytest.raises(DqasError, match="labels"):
            _ = view.label

    def test_values_are_computed_once(self) -> None:
        view = made().view(0)
        assert view.features is view.features
        assert view.gradients is view.gradients

    @pytest.mark.parametrize("candidates", [[30], [-1], [0.5], [[1, 2]], np.ones(30, bool)])
    def test_wrong_candidates(self, candidates: Any) -> None:
        with pytest.raises(UserError, match="candidates must"):
            made().view(0, candidates)

    @pytest.mark.parametrize("label", [-1, 3])
    def test_a_class_that_is_not_there(self, label: int) -> None:
        with pytest.raises(UserError, match=f"no class {label}"):
            made().view(label)

    def test_no_candidates_is_an_empty_view(self) -> None:
        view = made().view(0, [])
        assert (len(view), view.features.shape, view.losses.shape, len(view.gradients)) == (0, (0, 5), (0,), 0)

    def test_subset(self) -> None:
        whole, rows = made(), [7, 2, 9]
        part = whole.subset(rows)
        assert part.features is not None
        assert whole.features is not None
        assert torch.equal(part.features, whole.features[rows])
        assert torch.equal(part.labels, whole.labels[rows])
        assert part.num_classes == 3
        with pytest.raises(UserError, match="indices must"):
            whole.subset([30])


class TestGradients:
    @pytest.fixture
    def implicit(self) -> LastLayerGradients:
        return made().whole.gradients

    @pytest.fixture
    def written_out(self) -> torch.Tensor:
        """``[n, C, d + 1]`` by automatic differentiation of a linear layer that gives these very logits."""
        features, logits, labels = (torch.from_numpy(one) for one in arrays())
        rows = []
        for one, scores, label in zip(features.double(), logits.double(), labels, strict=True):
            head = torch.zeros(3, 6, dtype=torch.float64)
            head[:, 5] = scores
            head.requires_grad_()
            loss = functional.cross_entropy((head @ torch.cat([one, torch.ones(1)]))[None], label[None])
            rows.append(torch.autograd.grad(loss, head)[0])
        return torch.stack(rows)

    def test_products_and_norms(self, implicit: LastLayerGradients, written_out: torch.Tensor) -> None:
        flat = written_out.flatten(1)
        torch.testing.assert_close(implicit.squared_norms, flat.square().sum(dim=1))
        torch.testing.assert_close(implicit.norms, flat.norm(dim=1))
        torch.testing.assert_close(implicit.products(4), flat @ flat[4], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(implicit.products_with([4, 0, 4]), flat @ flat[[4, 0, 4]].T, rtol=1e-5, atol=1e-6)

    def test_sums(self, implicit: LastLayerGradients, written_out: torch.Tensor) -> None:
        weights = torch.linspace(-1, 2, 30)
        torch.testing.assert_close(implicit.total(), written_out.sum(dim=0))
        torch.testing.assert_close(implicit.total(weights), (weights.double()[:, None, None] * written_out).sum(dim=0))
        mean = written_out.mean(dim=0)
        torch.testing.assert_close(implicit.along(mean), written_out.flatten(1) @ mean.flatten())

    def test_chunks_do_not_show(self, implicit: LastLayerGradients, monkeypatch: pytest.MonkeyPatch) -> None:
        total, along = implicit.total(), implicit.along(implicit.total())
        monkeypatch.setattr("dqas_plugin.gradients._CHUNK", 7)
        again = LastLayerGradients(implicit.residuals, implicit.features)
        torch.testing.assert_close(again.total(), total)
        torch.testing.assert_close(again.along(total), along)
        torch.testing.assert_close(again.squared_norms, implicit.squared_norms)

    def test_the_residual_of_a_fitted_sample_keeps_its_digits(self) -> None:
        residuals = residuals_of(torch.tensor([[50.0, 0.0, 1.0]]), torch.tensor([0]))
        expected = np.exp(-50.0) * np.array([-(1 + np.e), 1, np.e])
        np.testing.assert_allclose(residuals[0].numpy(), expected, rtol=1e-12)
