"""Every hostile file of the corpus, read by what reads it: it is used, or refused in one sentence; see :mod:`hostile`."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import hostile
import registering
from hostile import CORPUS, Canary, DefectError, Target, execute, inputs, pack
from hostile_targets import TARGETS, uncovered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links, pipes, and limits of memory are Linux's")


@pytest.fixture(scope="module", autouse=True)
def adapters() -> Iterator[None]:
    from dqas_adapters import deepcore, distilled, dq, files, hugging_face, image_folders

    modules = {"deepcore": deepcore, "distilled": distilled, "dq": dq, "files": files, "hugging-face": hugging_face}
    with ExitStack() as stack:
        for name, module in {**modules, "images": image_folders}.items():
            stack.enter_context(registering.plugin(module, name))
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    target, first = TARGETS[name], True
    found = []
    for label, content in inputs(name):
        for variant in range(target.variants):
            try:
                said = execute(target, content, variant, measured=not first)
            except DefectError as error:
                found.append(f"{label}, variant {variant}: {error}")
                continue
            first = False  # the first call imports, and compiles
            if label.startswith("valid-") and variant == 0 and name not in ("weights", "cifar10", "cifar100"):
                assert said == "read", label
            if label.startswith("pickle-"):
                assert said != "read", label
    assert not found, "\n".join(found)


def test_every_reader_has_a_target() -> None:
    from dqas_plugin.plugins import plugins

    assert uncovered(plugins()) == set(), "write a target in hostile_targets.py, and its seeds in stress/fuzz_corpus.py"
    assert {one.name for one in CORPUS.iterdir()} == set(TARGETS)


def test_the_corpus_is_small() -> None:
    sizes = {one: one.stat().st_size for one in CORPUS.glob("*/*")}
    assert max(sizes.values()) <= 20_000
    assert sum(sizes.values()) <= 300_000


def carelessly(path: Path, _: int) -> None:
    import pickle

    pickle.loads(path.read_bytes())


def slowly(path: Path, _: int) -> None:
    while path.exists():
        pass


def greedily(_path: Path, _: int) -> None:
    """Memory from the system: what is asked of the allocator may be there already, and what is not written to is not taken."""
    with mmap.mmap(-1, 50 << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1


def elsewhere(_path: Path, _: int) -> None:
    Path("left-behind").touch()


def into_the_source(path: Path, _: int) -> None:
    path.with_name("beside").touch()


def loudly(_path: Path, _: int) -> None:
    import warnings

    warnings.warn("look", UserWarning, stacklevel=1)


def wordless(_path: Path, _: int) -> None:
    from dqas_plugin.errors import UserError

    raise UserError("something is wrong")


def unprepared(_path: Path, _: int) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (carelessly, "executed"),
        (greedily, "memory"),
        (elsewhere, "written"),
        (into_the_source, "written"),
        (loudly, "warning"),
        (wordless, "sentence"),
        (unprepared, "exception"),
        (slowly, "slow"),
    ],
)
def test_bad_readers_are_told(run: object, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setattr(hostile, "SECONDS", 0.1)
    if run is slowly:
        monkeypatch.setattr(hostile, "_PATIENCE", 1)
        kind = "hang"
    with pytest.raises(DefectError) as caught:
        execute(Target("bad", run, "hostile.bin", memory=20 << 20), pickle.dumps(Canary()))  # type: ignore[arg-type]
    assert caught.value.kind == kind


def test_a_source_hands_over_fewer_images_if_they_are_large() -> None:
    from dqas_plugin.datasets import decode

    sizes = [1] * (decode.BATCH + 10) + [decode._HELD // 2] * 5
    batches = list(decode.in_batches(decode.Encoded(str(number), bytes(size)) for number, size in enumerate(sizes)))
    assert [len(one) for one in batches] == [decode.BATCH, 12, 2, 1]
    assert [one.where for batch in batches for one in batch] == [str(number) for number in range(len(sizes))]


def test_no_more_pixels_are_decoded_at_once_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from dqas_plugin.datasets import decode

    Image.new("RGB", (10, 10)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    batch = [decode.Encoded(str(number), content) for number in range(decode.BATCH)]
    assert [len(one) for one in decode.decode_batches([[], batch], None)] == [decode.BATCH]
    monkeypatch.setattr(decode, "_AT_ONCE", 100 * 300)
    found = [len(one) for one in decode.decode_batches([batch], None)]
    assert max(found) == 100
    assert sum(found) == decode.BATCH


def test_bundles_stay_where_they_are_unpacked(tmp_path: Path) -> None:
    files = {
        "../out": b"x",
        "/etc/x": b"x",
        "a/../../b": b"x",
        "a\0b": b"x",
        "good/one": b"1 #### x",
        "two": b"\n",
        "l -> two": b"",
    }
    hostile.unpack(pack(files), tmp_path / "in")
    assert sorted(one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*")) == [
        "in",
        "in/good",
        "in/good/one",
        "in/l",
        "in/two",
    ]
    assert (tmp_path / "in" / "good" / "one").read_bytes() == b"1 #### x"
    assert (tmp_path / "in" / "l").read_bytes() == b"\n"
