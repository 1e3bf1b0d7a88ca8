"""What lies beside files in somebody's format: ``dqas.json``, which says what they do not, and the selection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqas_plugin.data import ImageDataset
from dqas_plugin.selection import Selection

RECORD = "dqas.json"


def origin(data: ImageDataset) -> dict[str, Any]:
    """Which images these are, for a record."""
    return {"dataset": data.name, "fingerprint": data.fingerprint}


def write_record(out: Path, record: Mapping[str, Any], selection: Selection | None) -> None:
    """Write :data:`RECORD`, and the selection, if there is one, as ``selection.npz``."""
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if selection is not None:
        selection.save(out / "selection.npz")
