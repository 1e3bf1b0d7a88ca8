"""A wrapper around every selection of DQAS: of nearly equal images of a class only the first may be selected."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from dqas_plugin import hookimpl

ALIKE = 0.99
"""Two images are nearly equal if their thumbnails correlate more than this: brightness and contrast do not count."""

SIDE = 8  # pixels of a thumbnail


def thumbnails(images):
    """uint8 ``[N, C, H, W]`` as float32 ``[N, C * 64]``: small images of mean 0 and length 1; of a blank one, zeros."""
    small = [functional.adaptive_avg_pool2d(part.float(), SIDE).flatten(1) for part in images.split(1024)]
    looks = torch.cat(small)
    return functional.normalize(looks - looks.mean(dim=1, keepdim=True))


def near_duplicates(data):
    """Indices of the images that are nearly equal to an earlier one of their class, which stays."""
    dropped = np.zeros(len(data), dtype=bool)
    for label in range(data.num_classes):
        members = np.flatnonzero(data.labels.numpy() == label)
        looks = thumbnails(data.images[members])
        for start in range(0, len(members), 1024):
            for row, second in (looks[start : start + 1024] @ looks.T > ALIKE).nonzero().tolist():
                if second > start + row and not dropped[members[start + row]]:
                    dropped[members[second]] = True
    return np.flatnonzero(dropped)


@hookimpl(wrapper=True)
def dqas_select(request):
    """Leave the copies out, let the selection be made, pass it on with a note of what was left out."""
    copies = near_duplicates(request.data)
    if len(copies):
        request.report(f"{len(copies)} near-duplicates are left out")
        request.restrict(np.setdiff1d(np.arange(len(request.data)), copies))
    selection = yield
    return replace(selection, provenance={**selection.provenance, "near_duplicates": len(copies)})
