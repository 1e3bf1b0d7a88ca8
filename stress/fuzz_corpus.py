"""The corpus that fuzzing starts from, made anew of synthetic data: valid files, and some that are made to do harm.

    python stress/fuzz_corpus.py [--anew]

Files of ``tests/corpus`` whose names begin with ``valid-``, ``pickle-`` or ``bomb-`` are written by this script; others are
findings, named by the class of defect, and stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz_made import Seeds
from fuzz_seed_images import pictures, roots, saved, tables
from fuzz_seeds import autoencoders, bins, checkouts, checkpoints, distilled, grids, selections, stores
from hostile import CORPUS, keep

OURS = ("valid-", "pickle-", "bomb-")


def every() -> Seeds:
    for part in (
        selections,
        grids,
        checkpoints,
        distilled,
        bins,
        pictures,
        tables,
        saved,
        roots,
        autoencoders,
        stores,
        checkouts,
    ):
        yield from part()


def main() -> None:
    """Write what is missing; with ``--anew``, all of it."""
    names = set()
    for target, name, content in every():
        names.add((target, name))
        there = [*(CORPUS / target).glob(f"{name}*")]
        if "--anew" not in sys.argv and any(one.name in (name, f"{name}.gz") for one in there):
            continue
        for one in there:
            if one.name in (name, f"{name}.gz"):
                one.unlink()
        if (size := keep(target, name, content)) > 20_000:
            print(f"large: {target}/{name}: {size:,} bytes")
    for one in CORPUS.glob("*/*"):
        if one.name.startswith(OURS) and (one.parent.name, one.name.removesuffix(".gz")) not in names:
            one.unlink()
    print(f"{sum(one.stat().st_size for one in CORPUS.glob('*/*')):,} bytes")


if __name__ == "__main__":
    main()
