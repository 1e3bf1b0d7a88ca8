"""DeepFool against a walk of one image at a time in float64, and against the distance to a linear boundary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dqas_plugin.deepfool import perturbations
from dqas_plugin.errors import UserError
from dqas_plugin.models import Network, convnet3, convnet3_small, resnet18

SHAPE = (3, 8, 8)


def pictures(count: int = 24, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8))


def made(build: Callable[[tuple[int, int, int], int], Network], classes: int = 5) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build(SHAPE, classes)
        nn.init.normal_(network.head.weight, std=0.5)
    network.set_normalisation(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3]))
    return network.eval()


class Linear(Network):
    """The pixels themselves as features: boundaries are planes."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape[0], nn.Linear(int(np.prod(shape)), classes))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Perceptron(Network):
    """Two layers, smooth."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape[0], nn.Linear(16, classes))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 16), nn.Tanh())

    def features(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return result


def literal(network: Network, image: Tensor, most: int = 50) -> float:
    """Algorithm 2 for one image, with the Jacobian written out, in float64."""
    start = network.normalise(image[None]).double().contiguous()
    wide = network.double()
    try:
        x, label = start.clone(), int(wide(start).argmax())
        for _ in range(most):
            outputs = wide(x)[0].detach()
            slopes = torch.autograd.functional.jacobian(lambda one: wide(one)[0], x).flatten(1)
            others = [k for k in range(len(outputs)) if k != label]
            normals = {k: slopes[k] - slopes[label] for k in others}
            best = min(others, key=lambda k: float((outputs[k] - outputs[label]).abs() / normals[k].norm()))
            gap = (outputs[best] - outputs[label]).abs()
            x = x + (gap / normals[best].square().sum() * normals[best]).reshape(x.shape)
            if int(wide(x).argmax()) != label:
                break
        return float((x - start).square().sum())
    finally:
        network.float()


@pytest.mark.parametrize("build", [Perceptron, convnet3_small])
def test_it_follows_the_algorithm(build: Callable[[tuple[int, int, int], int], Network]) -> None:
    network, images = made(build), pictures()
    expected = [literal(network, one) for one in images]
    found = perturbations(network, images)
    # A gap of logits is known to within the rounding of the logits, so it is lengths that agree, not shares of them.
    assert np.sqrt(found.numpy()) == pytest.approx(np.sqrt(expected), abs=1e-5)
    assert np.argsort(found.numpy()).tolist() == np.argsort(expected).tolist()


def test_of_a_linear_network_it_is_the_distance_to_the_nearest_plane() -> None:
    network, images = made(Linear), pictures()
    x = network.normalise(images).flatten(1).double()
    weight, bias = network.head.weight.detach().double(), network.head.bias.detach().double()
    outputs = x @ weight.T + bias
    label = outputs.argmax(dim=1)
    gaps = outputs.gather(1, label[:, None]) - outputs
    norms = (weight[:, None] - weight[None]).norm(dim=2)[label]
    distances = torch.where(norms > 0, gaps / norms, torch.inf)
    assert perturbations(network, images).tolist() == pytest.approx(distances.amin(dim=1).square().tolist(), rel=1e-4)


@pytest.mark.parametrize("build", [convnet3, convnet3_small, resnet18])
def test_neither_batches_nor_the_mode_change_it(build: Callable[[tuple[int, int, int], int], Network]) -> None:
    network, images = made(build), pictures(3)
    network.head.bias.requires_grad_(False)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    whole = perturbations(network, images)
    network.train()
    assert perturbations(network, images, batch=2).tolist() == pytest.approx(
        whole.tolist(), rel=1e-3
    )  # instance norm magnifies rounding
    assert network.training
    assert network.head.weight.requires_grad
    assert not network.head.bias.requires_grad
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())


class Averages(Network):
    """The mean of every channel: its gradient is one number seen from all pixels."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape[0], nn.Linear(shape[0], classes))

    def features(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def test_gradients_that_share_memory() -> None:
    network, images = made(Averages), pictures(6)
    assert perturbations(network, images).tolist() == pytest.approx([literal(network, one) for one in images], rel=1e-5)


def test_the_same_twice() -> None:
    network, images = made(convnet3_small), pictures()
    assert torch.equal(perturbations(network, images), perturbations(network, images))


def test_only_some_classes_are_looked_at() -> None:
    """Of a linear network the nearest plane among those of the highest logits, by hand."""
    network, images = made(Linear, classes=12), pictures()
    with torch.no_grad():
        network.head.weight *= torch.linspace(0.2, 5, 12)[:, None]  # else the second highest is nearest nearly always
    x = network.normalise(images).flatten(1).double()
    weight, bias = network.head.weight.detach().double(), network.head.bias.detach().double()
    expected = []
    for logits in x @ weight.T + bias:
        first, *others = logits.argsort(descending=True)[:2].tolist()
        expected.append(min(float((logits[first] - logits[k]) / (weight[first] - weight[k]).norm()) ** 2 for k in others))
    assert np.sqrt(perturbations(network, images, candidates=2).numpy()) == pytest.approx(np.sqrt(expected), abs=1e-5)
    whole = perturbations(network, images)
    assert (whole < torch.tensor(expected) * (1 - 1e-3)).any()  # some have a nearer plane among the rest
    assert torch.equal(perturbations(network, images, candidates=99), whole)


def test_in_bf16_it_is_about_the_same() -> None:
    network, images = made(Perceptron), pictures()
    whole, rough = perturbations(network, images), perturbations(network, images, precision="bf16")
    assert float(np.corrcoef(whole.log(), rough.log())[0, 1]) > 0.8


def test_the_walk_reaches_the_other_side_or_stops() -> None:
    network, images = made(Perceptron), pictures()
    whole = perturbations(network, images)
    assert (whole > 0).all()
    assert (perturbations(network, images, max_iterations=1) <= whole * (1 + 1e-5)).all()


def test_what_nothing_moves_is_farthest() -> None:
    network = made(Linear)
    nn.init.zeros_(network.head.weight)
    found = perturbations(network, pictures(3))
    assert found.tolist() == [torch.finfo(torch.float32).max] * 3
    with torch.no_grad():
        network.head.weight[0] = 1e-30  # the square of such a gradient is 0 in float32, the way beyond its range
    assert perturbations(network, pictures(3)).isfinite().all()
    assert perturbations(made(Linear, classes=1), pictures(2)).tolist() == [torch.finfo(torch.float32).max] * 2


def test_numbers_that_are_not_finite_stay_out() -> None:
    network = made(Linear)
    nn.init.constant_(network.head.bias, torch.nan)
    assert perturbations(network, pictures(3)).isfinite().all()


@pytest.mark.parametrize("option", ["batch", "max_iterations", "candidates"])
def test_mistakes(option: str) -> None:
    with pytest.raises(UserError, match=f"{option} of DeepFool must be at least"):
        perturbations(made(Linear), pictures(2), **{option: 0})  # type: ignore[arg-type]


def test_no_images() -> None:
    assert perturbations(made(Linear), pictures(0)).tolist() == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_the_same() -> None:
    network, images = made(convnet3_small), pictures()
    expected = perturbations(network, images)
    assert perturbations(network, images, device="cuda").tolist() == pytest.approx(expected.tolist(), rel=1e-2)


def test_says_how_far_it_is_but_not_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqas_plugin.told._PAUSE", 0.0)
    words: list[str] = []
    perturbations(made(convnet3_small), pictures(5), batch=2, report=words.append)
    assert words == ["DeepFool: 2 of 5 images", "DeepFool: 4 of 5 images"]
