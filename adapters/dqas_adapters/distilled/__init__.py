"""Distilled sets: images that a program has optimised, as a dataset to rank, to cut class by class and to train on.

* ``dc:PATH``: DC, DSA, DM (VICO-UoE/DatasetCondensation);
* ``dream:PATH``: DREAM and IDC (lyq312318224/DREAM), multi-formation decoded;
* ``mtt:PATH`` and ``datm:PATH``: trajectory matching (GeorgeCazenavette/mtt-distillation, NUS-HPC-AI-Lab/DATM), soft labels;
* the exporter ``dc``: tensors for DD-Ranking and DC-BENCH.

Paths joined by ``+`` are a family of sets of different size (:mod:`.family`). None of them has a test split: ``--test-from``.
"""

from __future__ import annotations

from collections.abc import Callable

from dqas_adapters.distilled import dc, dream, export, mtt
from dqas_plugin.hookspecs import hookimpl


@hookimpl
def dqas_register_datasets(register: Callable[..., None]) -> None:
    """Register the readers."""
    register("dc", dc.load, title="distilled by DC, DSA or DM (res_*.pt); several: PATH+PATH", takes_path=True)
    register("dream", dream.load, title="distilled by DREAM or IDC (data.pt; options factor, decode)", takes_path=True)
    register("mtt", mtt.load, title="distilled by MTT (images_best.pt; name zca_from or normalisation)", takes_path=True)
    register("datm", mtt.load, title="distilled by DATM: as mtt, with soft labels", takes_path=True)


@hookimpl
def dqas_register_exporters(register: Callable[..., None]) -> None:
    """Register the writer."""
    register("dc", export.write, title="tensors for DD-Ranking (images.pt, labels.pt) or DC-BENCH (option style)")
