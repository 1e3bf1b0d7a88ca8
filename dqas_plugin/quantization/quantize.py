"""Dataset quantization from end to end: figure 2(a) of the paper (DQ) and 2(b) (DQAS).

DQ makes bins of the original images and drops patches of what is chosen. DQAS drops patches first and makes bins of the
rebuilt images, so that what is chosen is what will be trained on (Equation 8); class counts are chosen, and the last samples
added by expected error reduction.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dqas_plugin.budget import budget_of
from dqas_plugin.data import ImageDataset
from dqas_plugin.defaults import ADAPTIVE
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.lookup import resolve_model
from dqas_plugin.models import Shape
from dqas_plugin.paths import new_folder
from dqas_plugin.pipeline import check, run_request
from dqas_plugin.quantization.bins import BINS, bin_sizes
from dqas_plugin.quantization.contact_sheet import contact_sheet
from dqas_plugin.quantization.patch_files import Written, write_images, write_patches
from dqas_plugin.quantization.patches import PatchedImages, describe_ratio
from dqas_plugin.quantization.rebuilding import Rebuilt, rebuilt_dataset
from dqas_plugin.quantization.settings import BINS_ON, PatchSettings
from dqas_plugin.recipes import Recipe
from dqas_plugin.request import SelectionRequest
from dqas_plugin.selection import Selection
from dqas_plugin.trained_signals import trained_network

PIPELINES = ("dqas", "dq")
ALLOCATOR, REFINER = "adaptive", ADAPTIVE
"""Of DQAS."""


@dataclass(frozen=True)
class Plan:
    """What a quantization does; the ablations of Tables 3 and 4 are its fields.

    Attributes:
        patches: which patches are dropped; None: none are, and images stay as they are.
        bins_on: whose features the bins are made of.
        allocator: rule for the class counts.
        refiner: rule for the last samples, or None.
        refine_share: their share of the budget.
        allocator_options: options of the allocator.
        refiner_options: options of the refiner.
        bins: how many.
        objective: what fills the bins, see :func:`dqas_plugin.quantization.bins.graphcut_bins`.
    """

    patches: PatchSettings | None
    bins_on: str
    allocator: str = "uniform"
    refiner: str | None = None
    refine_share: float = 0.1
    allocator_options: Mapping[str, Any] = field(default_factory=dict)
    refiner_options: Mapping[str, Any] = field(default_factory=dict)
    bins: int = BINS
    objective: str = "eq7"


def plan_of(
    pipeline: str,
    patches: PatchSettings | None,
    *,
    adaptive: bool = True,
    bins_on: str | None = None,
    refine_share: float = 0.1,
    allocator_options: Mapping[str, Any] | None = None,
    refiner_options: Mapping[str, Any] | None = None,
    bins: int = BINS,
) -> Plan:
    """The plan of a pipeline, with what is changed of it.

    Args:
        pipeline: ``dqas``, or ``dq``: even counts, bins of the original images by DQ's own gains.
        patches: None drops no patches.
        adaptive: for ``dqas``: choose class counts and refine.
        bins_on: ``original`` or ``reconstructed``; default: as the pipeline does it.
        refine_share: for ``dqas``; 0 refines nothing.
        allocator_options: options of the allocator ``adaptive``, for ``dqas``.
        refiner_options: options of the refiner ``error-reduction``, for ``dqas``.
        bins: how many.

    Raises:
        UserError: for another word, or options for what is not done.
    """
    if pipeline not in PIPELINES:
        raise unknown_name("pipeline", pipeline, PIPELINES)
    if bins_on is not None and bins_on not in BINS_ON:
        raise unknown_name("kind of images to make bins of", bins_on, BINS_ON)
    allocation, refinement = dict(allocator_options or {}), dict(refiner_options or {})
    full = Plan(
        patches,
        bins_on or ("original" if pipeline == "dq" else "reconstructed"),
        allocator_options=allocation,
        refiner_options=refinement,
        bins=bins,
        objective="dq" if pipeline == "dq" else "eq7",
    )
    if adaptive and pipeline == "dqas":
        return replace(full, allocator=ALLOCATOR, refiner=REFINER if refine_share else None, refine_share=refine_share)
    for kind, options in (("allocator", allocation), ("refiner", refinement)):
        if options:
            raise UserError(
                f"even counts without refinement have no {kind}, so not its option '{next(iter(options))}': leave it out"
            )
    return full


@dataclass(frozen=True, eq=False)
class Quantized:
    """S': what is chosen, and what is kept of it.

    Attributes:
        original: the training images that were chosen from.
        selection: of them.
        rebuilt: masks and rebuilt images of all of them; None where no patches were dropped.
        ratio: what the numbers come to, in words.
        plan: as it was done.
    """

    original: ImageDataset
    selection: Selection
    rebuilt: Rebuilt | None
    ratio: str
    plan: Plan

    @property
    def images(self) -> ImageDataset:
        """The chosen images, rebuilt, in the order of the selection."""
        source = self.original if self.rebuilt is None else self.rebuilt.data
        return source.subset(self.selection.indices)

    def write(self, folder: Path, test: ImageDataset, *, rebuilt: bool = False) -> list[Written]:
        """Write S' and the test split as parquet, the selection, and a contact sheet into a new or empty folder.

        Args:
            folder: made if it is missing.
            test: the test split, unchanged, so that the folder loads as a dataset.
            rebuilt: write rebuilt images instead of patches and masks.

        Raises:
            UserError: if something is in the folder, or it cannot be written.
        """
        with new_folder(folder) as whole:
            written = [*self._write_train(whole, as_images=rebuilt), write_images(whole, test, split="test")]
            self.selection.save(whole / "selection.npz")
        return [one._replace(path=folder / one.path.name) for one in written]

    def _write_train(self, folder: Path, *, as_images: bool) -> list[Written]:
        """S' and its contact sheet; an autoencoder that rebuilds it goes with it."""
        found, patches, rows = self.rebuilt, self.plan.patches, torch.from_numpy(self.selection.indices)
        if found is None or patches is None:
            return [write_images(folder, self.images)]
        part, images = self.original.subset(self.selection.indices), self.images
        contact_sheet(folder / "contact-sheet.png", part, found.keep[rows], images.images)
        if as_images:
            return [write_images(folder, images)]
        weights = None if found.mae is None else Path(shutil.copy(found.mae, folder / "autoencoder.pt"))
        kept = PatchedImages.of(part.images, found.keep[rows])
        return [write_patches(folder, part, kept, drop_rate=patches.drop_rate, mae=weights)]


def quantize(
    data: ImageDataset,
    plan: Plan,
    *,
    ratio: float | None = None,
    aipc: float | None = None,
    model: str,
    recipe: Recipe,
    seed: int = 0,
    device: str = "cpu",
    goal: str = "mean",
    proxy: str = "probe",
    report: Callable[[str], None] = lambda words: None,
) -> Quantized:
    """Choose images and patches such that they are ``ratio`` of the data together.

    Every stage is kept in the cache: the proxy, the masks and rebuilt images, the signals of those.

    Args:
        data: the training images.
        plan: see :func:`plan_of`.
        ratio: data to keep; the images chosen are ``ratio / patch keep ratio`` of all. Give this or ``aipc``.
        aipc: the same as images per class: so many whole images' worth.
        model: network of Grad-CAM, features and probe.
        recipe: how it is trained.
        seed: of everything random.
        device: where networks are trained.
        goal: of the allocator.
        proxy: of the allocator.
        report: told what is done.

    Raises:
        UserError: for budgets that cannot be met, and whatever the steps raise.
    """
    whole = budget_of(len(data), data.num_classes, ratio=ratio, aipc=aipc)
    budget = images_for(whole, len(data), data.image_shape, plan.patches)
    for name, size in zip(data.classes, data.class_sizes, strict=True):
        bin_sizes(int(size), plan.bins, name=f"class '{name}'")  # too few are known before anything is trained
    words = _in_words(data, plan, budget)
    request = SelectionRequest(
        data,
        "bins",
        budget,
        method_options={"bins": plan.bins, "objective": plan.objective},
        allocator=plan.allocator,
        allocator_options=plan.allocator_options,
        refiner=plan.refiner,
        refiner_options=plan.refiner_options,
        refine_share=plan.refine_share,
        goal=goal,
        proxy=proxy,
        model=model,
        recipe=recipe,
        seed=seed,
        device=device,
        made_for=data,
        report=report,
    )
    check(request)
    report(words)
    found = None if plan.patches is None else rebuilt_by_proxy(data, plan.patches, model, recipe, seed, device, report)
    if found is not None and plan.bins_on == "reconstructed":
        request.data = found.data
    chosen = run_request(request)
    own: dict[str, Any] = {
        "data_ratio": words,
        "bins_on": plan.bins_on,
        "patch_scores": None if found is None else found.scores,
        "rebuild": None if plan.patches is None else plan.patches.rebuild,
    }
    return Quantized(data, replace(chosen, provenance={**chosen.provenance, **own}), found, words, plan)


def _in_words(data: ImageDataset, plan: Plan, budget: int) -> str:
    share = budget / len(data)
    if plan.patches is None:
        return f"sample ratio {share:.4%}: no patches are dropped"
    return describe_ratio(share, plan.patches.patches(data.image_shape), plan.patches.drop_rate)


def images_for(budget: int, total: int, shape: Shape, patches: PatchSettings | None) -> int:
    """How many images take the room of ``budget`` whole ones.

    Args:
        budget: whole images.
        total: images there are.
        shape: of each.
        patches: which of their patches are dropped; None: none.

    Raises:
        UserError: if that is more than there are.
    """
    kept = 1.0 if patches is None else patches.keep_ratio(shape)
    images = round(budget / kept)
    if images > total:
        raise UserError(
            f"a data keep ratio of {budget / total:.4g} with {kept:.0%} of the patches takes {images:,} images, more than "
            f"the {total:,} there are: lower the ratio to {kept:.4g} or the drop rate"
        )
    return images


def rebuilt_by_proxy(
    data: ImageDataset,
    patches: PatchSettings,
    model: str,
    recipe: Recipe,
    seed: int,
    device: str,
    report: Callable[[str], None] = lambda words: None,
) -> Rebuilt:
    """The rebuilt images, with Grad-CAM of the network whose signals all methods share; kept in the cache."""
    build = resolve_model(model)
    network, identity = trained_network(data, model, build, recipe, seed, device=device)
    report("dropping patches, and rebuilding the images from the others")
    return rebuilt_dataset(data, patches, network, identity=identity, device=device, report=report)
