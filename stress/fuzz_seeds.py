"""The corpus: single files, and what becomes one."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fuzz_made import ROOT, Seeds, header, meta, nasty_pickles, npy, npz, shapes_of_pickles, torch_file, written
from hostile import Canary, pack
from hostile_targets import data


def selections() -> Seeds:
    images = data()
    told = {"method": "random", "dataset": images.name, "fingerprint": images.fingerprint, "seed": 0, "ratio": 0.2}
    indices, counts = npy(np.arange(6)), npy(np.array([2, 2, 2]))
    yield "selection", "valid-plain", npz(indices=indices, counts=counts, meta=meta(told))
    yield "selection", "valid-weights", npz(indices=indices, counts=counts, weights=npy(np.ones(6, np.float32)), meta=meta({}))
    yield "selection", "valid-deflated", npz(zipfile.ZIP_DEFLATED, indices=indices, counts=counts, meta=meta(told))
    objects = npy(np.array([Canary()], dtype=object), allow_pickle=True)
    yield "selection", "pickle-indices", npz(indices=objects, counts=counts, meta=meta({}))
    yield "selection", "pickle-meta", npz(indices=indices, counts=counts, meta=objects)
    zeros = header(f"({40_000_000},)") + bytes(320_000_000)
    yield "selection", "bomb-deflate", npz(zipfile.ZIP_BZIP2, indices=zeros, counts=counts, meta=meta({}))
    yield "selection", "bomb-claim", npz(indices=header(f"({10**12},)"), counts=counts, meta=meta({}))
    yield "selection", "bomb-sizes", npz(indices=indices, counts=npy(np.array([2**62] * 4 + [6])), meta=meta({}))
    order, sizes = npy(np.arange(9)), npy(np.array([3, 3, 3]))
    yield (
        "ranking",
        "valid-plain",
        npz(order=order, sizes=sizes, meta=meta({"method": "herding", "nested": True, "provenance": {}})),
    )
    yield "ranking", "valid-weights", npz(order=order, sizes=sizes, weights=npy(np.ones(9)), meta=meta({"method": "x"}))
    yield "ranking", "pickle-order", npz(order=objects, sizes=sizes, meta=meta({}))
    yield "ranking", "bomb-sizes", npz(order=order, sizes=npy(np.array([2**62] * 4 + [9])), meta=meta({}))


_ALL_KEYS = """
title = "all"
[defaults]
method = ["graphcut", "herding"]
adaptive = true
goal = "worst"
proxy = "train"
[[grid]]
dataset = "shapes"
dataset-option = { modes = 30, size = 8 }
ratio = [0.05, 0.1]
seeds = 2
lr = 0.1
batch = 64
method-option = { compat = "paper" }
max-memory = "1GB"
allocator = ["adaptive", "paper"]
allocator-option = { iterations = 5 }
refiner = "error-reduction"
refiner-option = { rounds = 1 }
scorer = "ridge"
[[grid]]
dataset = "digits"
aipc = [1, 5]
epochs = 3
bins-on = "original"
no-patches = true
drop-rate = 0.5
patch-size = 4
patch-scores = "saliency"
rebuild = "harmonic"
model = "convnet3"
recipe = "fast"
prior = "empirical"
refine-share = 0.2
features = "proxy"
[[grid]]
dataset = "folder:x"
test-from = "digits"
iterations = 10
"""


def grids() -> Seeds:
    for file in sorted((ROOT / "dqas_plugin" / "bench" / "grids").glob("*.toml")):
        yield "grid", f"valid-{file.stem}", file.read_bytes()
    yield "grid", "valid-all-keys", _ALL_KEYS.encode()
    yield "grid", "bomb-nested", b"title = " + b"[" * 5000
    yield "grid", "bomb-dotted", b"title = [{" + b"a." * 3000 + b"a = 1}]"
    yield "grid", "bomb-digits", b"[[grid]]\nseeds = 0x" + b"f" * 6000


def checkpoints() -> Seeds:
    from dqas_adapters.deepcore.checkpoints import labels_digest

    recorder = SimpleNamespace(train_loss=[1.0, 0.5], train_acc=[50.0, 60.0], test_loss=[1.0], test_acc=[40.0])
    whole = {
        "exp": 0,
        "epoch": 200,
        "state_dict": OrderedDict(weight=torch.zeros(2, 2)),
        "best_acc1": 91.2,
        "rec": recorder,
        "subset": {
            "indices": np.arange(6),
            "weights": np.ones(6),
            "dqas": json.dumps({"labels": labels_digest(data().labels.numpy())}),
        },
        "sel_args": {"epochs": 200, "balance": True, "selection_method": "LeastConfidence"},
    }
    plain = {"subset": {"indices": np.arange(6)}, "sel_args": {"balance": True}}
    for name, content in shapes_of_pickles({"whole": whole, "selection": plain}):
        yield "deepcore", name, content
    for name, content in nasty_pickles():
        if name.startswith("pickle") or name in ("bomb-integer", "bomb-attributes"):
            yield "deepcore", name, content
    yield (
        "deepcore",
        "bomb-keys",
        torch_file({"subset": {"indices": [0, 1, 2]}, "sel_args": {10**9000: 10**9000, "a": 10**9000}}),
    )
    laughs: list[Any] = [0]
    for _ in range(60):
        laughs = [laughs, laughs]
    yield "deepcore", "bomb-laughing-indices", torch_file({"subset": {"indices": laughs}})


def distilled() -> Seeds:
    draws = torch.Generator().manual_seed(0)
    images, labels = torch.rand(4, 3, 8, 8, generator=draws), torch.tensor([0, 0, 1, 1])
    normal = (images - 0.45) / 0.2
    pairs = {"data": [[normal, labels], [normal, labels]], "accs_all_exps": {"ConvNet": [np.float64(0.25)]}}
    for name, content in shapes_of_pickles({"two-runs": pairs}):
        yield "dc", name, content
    for name, content in shapes_of_pickles({"plain": [images, labels]}):
        yield "dream", name, pack({"data.pt": content, "args.txt": json.dumps({"factor": 2, "decode_type": "multi"}).encode()})
    one = torch_file([torch.rand(2, 1, 8, 8), torch.tensor([0, 1])])
    yield "dream", "bomb-factor", pack({"data.pt": one, "args.txt": b'{"factor": 999999999999999999999}'})
    yield "dream", "bomb-arguments", pack({"data.pt": one, "args.txt": b"[" * 5_000})
    yield "dream", "bomb-null", pack({"data.pt": one, "args.txt -> /dev/zero": b""})
    for name, content in shapes_of_pickles({"images": images}):
        parts = {"images_best.pt": content, "labels_best.pt": torch_file(labels)}
        yield "mtt", name, pack(parts)
    soft = torch.eye(2).repeat_interleave(2, 0) * 3
    yield (
        "mtt",
        "valid-soft",
        pack(
            {
                "images_best.pt": torch_file(images),
                "labels_best.pt": torch_file(soft),
                "lr_best.pt": torch_file(torch.tensor(0.01)),
            }
        ),
    )
    yield (
        "mtt",
        "bomb-rate",
        pack({"images_best.pt": torch_file(images), "labels_best.pt": torch_file(labels), "lr_best.pt": torch_file(10**400)}),
    )
    for name, content in nasty_pickles():
        yield "dc", name, content
        if name in ("pickle-zip", "pickle-legacy", "bomb-laughs"):
            yield "dream", name, pack({"data.pt": content})
            yield "mtt", name, pack({"images_best.pt": torch_file(images), "labels_best.pt": content})


def bins() -> Seeds:
    yield "dq", "valid-plain", npy(np.arange(15))
    yield "dq", "valid-float", npy(np.arange(15.0))
    yield "dq", "pickle-object", npy(np.array([Canary()], dtype=object), allow_pickle=True)
    yield "dq", "pickle-bare", pickle.dumps(Canary())
    yield "dq", "bomb-claim", header(f"({10**12},)") + bytes(80)
    yield "dq", "bomb-nested", header("(" * 3000 + ")" * 3000)
    yield "dq", "bomb-python-2", header("(2L,)") + bytes(16)
    yield "dq", "bomb-escape", header("(2,)", "'<i8\\d'") + bytes(16)
    parts = {f"select_indices_CIFAR10_exp{k}.npy": npy(np.arange(30).reshape(10, 3)[k::2].ravel()) for k in range(2)}
    yield "dq-bins", "valid-two", pack(parts)
    yield "dq-bins", "valid-described", pack({**parts, "dqas.json": json.dumps({"files": {"x": "y"}, "dataset": "z"}).encode()})
    first, second = parts
    yield "dq-bins", "bomb-links", pack({f"{first} -> /dev/zero": b"", second: parts[second]})
    yield "dq-bins", "bomb-pipe", pack({f"{first} |": b"", second: parts[second]})
    yield "dq-bins", "bomb-json", pack({**parts, "dqas.json": b"[" * 5_000})
    yield (
        "dq-bins",
        "pickle-object",
        pack({first: npy(np.array([Canary()], dtype=object), allow_pickle=True), second: parts[second]}),
    )


def autoencoders() -> Seeds:
    from dqas_plugin.quantization.mae import MaeShape, MaskedAutoencoder
    from dqas_plugin.quantization.mae_weights import save_mae

    shape = MaeShape((1, 4, 4), 2, 8, 1, 2, 8, 1, 2, 1.0)
    torch.manual_seed(0)
    mae = MaskedAutoencoder(shape)
    ours = written(lambda path: save_mae(mae, path), "mae.pth")
    yield "mae", "valid-ours", ours
    content = torch.load(io.BytesIO(ours), weights_only=True)
    about = content["dqas"]

    def changed(**parts: Any) -> bytes:
        return torch_file({"model": content["model"], "dqas": {**about, "shape": {**about["shape"], **parts}}})

    yield "mae", "bomb-depth", changed(depth=10**9)
    yield "mae", "bomb-width", changed(width=2**40)
    yield "mae", "bomb-heads", changed(heads=0)
    yield "mae", "bomb-patch", changed(patch=0)
    yield "mae", "bomb-types", changed(depth="x", image=[None, {}, 3])
    yield "mae", "bomb-mean", torch_file({"model": content["model"], "dqas": {"shape": about["shape"]}})
    yield "mae", "bomb-keys", torch_file({"model": {1: torch.zeros(1), "a": torch.zeros(1)}, "dqas": about})
    told = {
        "patch_embed.proj.weight": torch.zeros(768, 3, 0, 2),
        "pos_embed": torch.zeros(1, 2, 0),
        "blocks.0.mlp.fc1.weight": torch.zeros(0, 768),
        "decoder_embed.weight": torch.zeros(16, 0),
        "blocks.999999999.x": torch.zeros(1),
    }
    yield "mae", "bomb-release", torch_file({"model": told})
    for name, nasty in nasty_pickles():
        yield "mae", name, nasty
        yield "weights", name, nasty
    yield "weights", "valid-small", torch_file({"model": {"conv1.weight": torch.zeros(1)}})


_ODD_NUMBERS = (
    b'{"accuracy": {"mean": 1e999, "worst": -1e999, "natural": NaN, "classes": [1e999, null]}, '
    b'"counts": [99999999999999999999, -1], "seconds": {"x": "y"}}'
)


def stores() -> Seeds:
    from evidence_problem import toy_cells, usual

    rows = {}
    for cell in toy_cells(ratios=[0.1], seeds=2):
        rows[f"{cell.key}/config"] = json.dumps(cell.configuration()).encode()
        rows[f"{cell.key}/result"] = json.dumps(usual(cell)).encode()
    yield "results", "valid-cells", pack(rows)
    first = next(iter(rows)).partition("/")[0]
    for name, config, result in (
        ("not-json", b"{", b"["),
        ("other-types", b"[]", b"3"),
        ("empty", b"{}", b"{}"),
        ("deep", b"[" * 5_000, b"[" * 5_000),
        (
            "numbers",
            rows[f"{first}/config"],
            _ODD_NUMBERS,
        ),
    ):
        yield "results", f"bomb-{name}", pack({**rows, f"{first}/config": config, f"{first}/result": result})
    yield "results", "bomb-no-database", pack({"results.sqlite": b"SQLite format 3\x00" + bytes(84)})


def checkouts() -> Seeds:
    standin = ROOT / "tests" / "deepcore_standin" / "deepcore" / "methods"
    files = {f"deepcore/methods/{one.name}": one.read_bytes() for one in sorted(standin.glob("*.py"))}
    if sum(map(len, files.values())) < 20_000:
        yield "checkout", "valid-stand-in", pack(files)
    yield "checkout", "bomb-nested", pack({"deepcore/methods/one.py": b"(" * 5_000})
    yield (
        "checkout",
        "bomb-cycle",
        pack({"deepcore/methods/one.py": b"class A(B): pass\nclass B(A): pass\nclass C(C, CoresetMethod): pass\n"}),
    )
    yield (
        "checkout",
        "bomb-digits",
        pack({"deepcore/methods/one.py": b"class A(CoresetMethod):\n def __init__(self, a=0x" + b"f" * 5000 + b"): pass\n"}),
    )
    yield "checkout", "bomb-head", pack({".git": b"gitdir: /dev/zero\n"})
