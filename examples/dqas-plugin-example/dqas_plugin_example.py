"""A plugin of DQAS: a determinantal point process as a method, and a wrapper that keeps blank images out of every selection."""

import numpy as np
import torch

from dqas_plugin import hookimpl, selector


@selector(
    "dpp",
    title="DPP: typical samples whose features span a large volume",
    family="geometry",
    needs={"features"},
    source="Chen, Zhang and Zhou, NeurIPS 2018, algorithm 1",
    memory=lambda size: 4 * size.samples * (size.budget + 1000 + size.width),
)
def dpp(view, budget, rng, *, width=1.0, typical=1.0):
    """Greedy maximum of the determinant of a kernel between the picks, by one column of its Cholesky factor a pick.

    The kernel is Gaussian, ``width`` typical distances wide, times the density of either sample to the power of ``typical``.
    """
    features = view.features  # [n, d]
    some = features[rng.choice(len(features), min(len(features), 500), replace=False)]
    distances = torch.cdist(features, some)
    scale = 2 * (width * distances.median()) ** 2
    density = torch.exp(-distances.square() / scale).mean(dim=1) ** typical  # [n]
    volume = density.square()  # what each sample would add to the volume of the picks
    columns = features.new_zeros(budget, len(features))
    picks = []
    for place in range(budget):
        best = int(volume.argmax())
        near = torch.exp(-(features - features[best]).square().sum(dim=1) / scale)
        rest = density[best] * density * near - columns[:place, best] @ columns[:place]
        columns[place] = rest / volume[best].clamp_min(1e-9).sqrt()
        volume -= columns[place].square()
        picks.append(best)
        volume[picks] = -torch.inf
    return picks


@hookimpl
def dqas_register_selectors(register):
    """Make the method known."""
    register(dpp)


@hookimpl(wrapper=True)
def dqas_select(request):
    """Whatever the method: an image of one colour all over is not selected."""
    pixels = request.data.images.flatten(1)  # uint8 [N, C * H * W]
    blank = (pixels.amax(dim=1) == pixels.amin(dim=1)).numpy()
    if blank.any():
        request.report(f"{blank.sum()} blank images are left out")
        request.restrict(np.flatnonzero(~blank))
    return (yield)
