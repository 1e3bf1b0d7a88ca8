"""Coverage-guided fuzzing of everything that reads a file (``pip install atheris``; Linux).

    python stress/fuzz.py --list
    python stress/fuzz.py --target selection --minutes 30
    python stress/fuzz.py --all --minutes 30

Inputs that found a defect lie in ``--out`` (``build/fuzz``) afterwards, the shortest for each kind and place of defect. Named
by the class of defect, they belong into ``tests/corpus``, which ``tests/test_corpus.py`` replays.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / one) for one in (".", "adapters", "cli", "tests", "stress")]  # this checkout, whatever is installed

PACKAGES = ("dqas_plugin", "dqas_adapters", "dqas_cli")
LONGEST = 1 << 16  # bytes of an input
RESIDENT = 4000  # MiB at which libFuzzer gives up
SKIPPED = ("__main__", "slurm", "ray", "deepcore.benchmark")  # modules that read nothing, or change the process


def compiled_modules() -> list[str]:
    """Modules whose functions numba compiles: it knows nothing of the calls that count coverage."""
    found = [one for one in (ROOT / "dqas_plugin").rglob("*.py") if "compiled import" in one.read_text(encoding="utf-8")]
    return [".".join(one.relative_to(ROOT).with_suffix("").parts) for one in found]


def import_all() -> None:
    """Every module of the program, so that none is imported later and not watched."""
    for package in PACKAGES:
        for one in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not one.name.endswith(SKIPPED):
                importlib.import_module(one.name)


def work(name: str, seconds: int, out: Path) -> None:
    """Fuzz one target in this process; findings are kept and the run goes on."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES), exclude=compiled_modules()):
        import_all()
    from fuzz_mutators import mutator_of
    from hostile import DefectError, execute, inputs
    from hostile_targets import TARGETS, variant_of

    target = TARGETS[name]
    seeds, grown = out / "seeds", out / "grown"
    for folder in (seeds, grown):
        folder.mkdir(parents=True, exist_ok=True)
    for label, content in inputs(name):
        (seeds / label).write_bytes(content)
        for variant in range(target.variants):  # imports, compiles, and shows what is known already
            _tried(target, content, variant, out, DefectError, execute, measured=False)
    mutate = mutator_of(target.file)

    def change(content: bytes) -> bytes:
        return atheris.Mutate(content, max(len(content) + 64, 64))

    def mutated(content: bytes, size: int, seed: int) -> bytes:
        draws = random.Random(seed)
        found = content
        for _ in range(draws.choice([1, 1, 1, 2, 4])):
            found = mutate(found, change, draws) if draws.random() < 0.8 else change(found)
        return found[:size]

    def one_input(content: bytes) -> None:
        _tried(target, content, variant_of(target, content), out, DefectError, execute)

    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={RESIDENT}",
        "-timeout=60",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], str(grown), str(seeds), *flags, f"-artifact_prefix={out}/", "-verbosity=1"],
        one_input,
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def _tried(target: Any, content: bytes, variant: int, out: Path, defect: Any, execute: Any, measured: bool = True) -> None:
    try:
        execute(target, content, variant, measured=measured)
    except defect as error:
        text = re.sub(r"hostile\.\w+|0x[0-9a-f]+|\d{3,}", "…", str(error))
        place = text.rpartition(" at ")[2] if " at " in text else text
        name = f"{error.kind}-{hashlib.blake2b(f'{error.kind} {place}'.encode(), digest_size=4).hexdigest()}"
        findings = out / "findings"
        findings.mkdir(parents=True, exist_ok=True)
        kept = findings / name
        if not kept.exists() or len(content) < kept.stat().st_size:
            kept.write_bytes(content)
            (findings / f"{name}.txt").write_text(f"variant {variant}\n{error}\n", encoding="utf-8", errors="backslashreplace")


def fuzz(name: str, minutes: float, out: Path) -> dict[str, Any]:
    """Fuzz one target in processes of its own, one after the other where one dies."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * minutes
    row: dict[str, Any] = {"target": name, "minutes": 0.0, "executions": 0, "coverage": 0, "peak MiB": 0, "deaths": 0}
    while (left := int(until - time.monotonic())) > 5:
        call = [sys.executable, __file__, "--work", name, "--seconds", str(left), "--out", str(out)]
        started = time.monotonic()
        with (folder / "log").open("ab+") as log:
            begin = log.tell()
            done = subprocess.run(call, stdout=log, stderr=log, check=False, env={**os.environ, "PYTHONWARNINGS": "default"})
            log.seek(begin)
            said = log.read().decode(errors="replace")
        row["minutes"] += (time.monotonic() - started) / 60
        counts = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or re.findall(r"^#(\d+)\s", said, re.MULTILINE)
        row["executions"] += int(counts[-1]) if counts else 0
        row["coverage"] = max([row["coverage"], *map(int, re.findall(r"cov: (\d+)", said))])
        row["peak MiB"] = max([row["peak MiB"], *map(int, re.findall(r"(?:rss: |peak_rss_mb:\s*)(\d+)", said))])
        if done.returncode:
            row["deaths"] += 1
            if time.monotonic() - started < 20:
                row["note"] = said.strip().splitlines()[-1][:100] if said.strip() else ""
                break
    findings = sorted(one.stem for one in (folder / "findings").glob("*.txt"))
    row["findings"] = len(findings)
    row["kinds"] = " ".join(findings)
    return row


def shown(rows: list[dict[str, Any]]) -> str:
    """The figures as a table."""
    lines = [
        f"{'target':<16}{'minutes':>8}{'executions':>12}{'coverage':>10}{'peak MiB':>10}{'deaths':>8}{'findings':>10}  kinds"
    ]
    lines += [
        f"{one['target']:<16}{one['minutes']:>8.1f}{one['executions']:>12,}{one['coverage']:>10,}{one['peak MiB']:>10,}"
        f"{one['deaths']:>8}{one['findings']:>10}  {one['kinds']} {one.get('note', '')}"
        for one in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", help="a name of --list; may be repeated")
    parser.add_argument("--all", action="store_true", help="every target, one after the other")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--minutes", type=float, default=30, help="for each target")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=60, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work(asked.work, asked.seconds, asked.out / asked.work)
        return
    from hostile_targets import TARGETS

    if asked.list:
        print("\n".join(TARGETS))
        return
    rows = []
    for name in TARGETS if asked.all else asked.target or []:
        rows.append(fuzz(name, asked.minutes, asked.out.resolve()))
        print(shown(rows), flush=True)
        (asked.out / f"{name}.json").write_text(json.dumps(rows[-1], indent=1))


if __name__ == "__main__":
    main()
