"""Dataset Quantization (Zhou et al., ICCV 2023; magic-research/Dataset_Quantization): its files read, and written for it.

Its program works in steps, and hands files from one to the next:

* ``quantize_sample.py`` writes bins, ``select_indices_{DATASET}_exp{k}.npy``: here the importer and method ``dq-bins:FOLDER``;
* ``quantize_bin.py`` draws from the bins and writes ``select_indices_{DATASET}_{fraction}.npy``: the importer ``dq``;
* ``quantize_pixel.py`` writes images rebuilt from their patches, ``{label}/{index}.png``: the dataset ``dq-images:FOLDER``;
* the exporter ``dq`` writes all three for its scripts to go on from.

All numbers in its files are positions in the training set as its program loads it: CIFAR-10 in the order of its batches, others
in the order of torchvision's ``ImageFolder``. The files do not say which: what can be checked is in :mod:`.origin`.
"""

from __future__ import annotations

from collections.abc import Callable

from dqas_adapters.dq.images import load_images
from dqas_adapters.dq.reading import load_bins, load_selection
from dqas_adapters.dq.writing import write
from dqas_plugin.hookspecs import hookimpl


@hookimpl
def dqas_register_importers(register: Callable[..., None]) -> None:
    """Register the readers of bins and of selections."""
    title = "bins of DQ (select_indices_*_exp0.npy …), drawn from in turn; also a method: dq-bins:FOLDER"
    register("dq-bins", load_bins, title=title, needs_dataset=True)
    register("dq", load_selection, title="a selection of DQ (select_indices_*_0.125.npy)", needs_dataset=True)


@hookimpl
def dqas_register_datasets(register: Callable[..., None]) -> None:
    """Register the rebuilt images."""
    register("dq-images", load_images, title="images rebuilt by DQ (label/index.png), by index", takes_path=True)


@hookimpl
def dqas_register_exporters(register: Callable[..., None]) -> None:
    """Register the writer of all of its files."""
    register("dq", write, title="files for the scripts of DQ: selection, bins, images (options bins, images, imagefolder)")
