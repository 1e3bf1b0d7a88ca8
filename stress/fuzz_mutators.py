"""Mutators that know what a file looks like: what comes out is damaged inside, and not only refused at the door.

Each gets content, a way to change plain bytes, and random numbers. What it cannot take apart is changed as plain bytes.
"""

from __future__ import annotations

import io
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

from hostile import members, pack

Change = Callable[[bytes], bytes]
Mutator = Callable[[bytes, Change, random.Random], bytes]

WORDS = (
    *("0", "1", "-1", "2", "255", "256", "65536", "2147483648", "-2147483649", "9223372036854775807", "18446744073709551616"),
    *("1e308", "-1e308", "1e999", "NaN", "Infinity", "null", "true", "false", '""', "[]", "{}", "9" * 400, "0.1", "1e-320"),
    *('"\\u0000"', '"\\ud800"', '"../.."', '"/etc/passwd"', '"a/b"', '"x"', '"\\u001b[31m"', "[[]]", '{"a": 1}', "inf", "nan"),
)
"""Values to put where a value stands."""

_VALUE = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d[\w.+-]*|\btrue\b|\bfalse\b|\bnull\b|\[[^\[\]\n]*\]|\{[^{}\n]*\}')
_NAMES = ("data-00000.arrow", "images_best.pt", "state.json", "a.png", "args.txt", "train/a.png", "dqas.json")


def text(content: bytes, change: Change, draws: random.Random) -> bytes:
    """JSON and TOML: one value becomes another, a line goes away, comes twice or moves."""
    kind = draws.randrange(5)
    found = list(_VALUE.finditer(content))
    if kind < 3 and found:
        one = draws.choice(found)
        other = draws.choice(found)[0] if draws.random() < 0.3 else draws.choice(WORDS).encode()
        return content[: one.start()] + other + content[one.end() :]
    lines = content.split(b"\n")
    if kind == 3 and len(lines) > 1:
        place = draws.randrange(len(lines))
        lines[place : place + 1] = draws.choice([[], [lines[place]] * 2, [draws.choice(lines)]])
        return b"\n".join(lines)
    return change(content)


def archive(content: bytes, change: Change, draws: random.Random) -> bytes:
    """A zip file: one member is changed, dropped, renamed or doubled; checksums are right again."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as source:
            parts = [(one.filename, source.read(one)) for one in source.infolist()]
    except Exception:  # no zip file any more: plain bytes
        return change(content)
    if not parts or sum(len(one) for _, one in parts) > 1 << 20:
        return change(content)
    place = draws.randrange(len(parts))
    name, inner = parts[place]
    kind = draws.randrange(10)
    if kind == 0:
        del parts[place]
    elif kind == 1:
        parts[place] = (draws.choice(parts)[0] if draws.random() < 0.7 else name + "x", inner)
    elif kind == 2:
        parts.append((name, draws.choice(parts)[1]))
    else:
        parts[place] = (name, by_name(name)(inner, change, draws))
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if draws.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name are what is wanted
        for one, written in parts:
            target.writestr(zipfile.ZipInfo(one), written, method)
    return buffer.getvalue()


def npy(content: bytes, change: Change, draws: random.Random) -> bytes:
    """An array: another shape or type in the header, whose length is right again; or other values."""
    if content[:6] != b"\x93NUMPY" or len(content) < 10 or draws.random() < 0.3:
        return change(content)
    length = struct.unpack("<H", content[8:10])[0]
    head, body = content[10 : 10 + length], content[10 + length :]
    if draws.random() < 0.4 and len(body) >= 8:
        place = draws.randrange(len(body) // 8) * 8
        value = draws.choice([0, 1, -1, 2**31, 2**62, -(2**63), 2**63 - 1, 0x7FF8000000000000, 0x7FF0000000000000])
        return content[: 10 + length] + body[:place] + struct.pack("<q", value) + body[place + 8 :]
    shapes = [
        "(0,)",
        "()",
        "(1,)",
        "(-1,)",
        f"({len(body) // 8},)",
        f"({len(body)},)",
        "(2, 2)",
        "(4611686018427387904,)",
        "(2L,)",
    ]
    kinds = ["<i8", ">i8", "|u1", "<f8", "<f4", "<f2", "<u8", "|b1", "<c8", "|O", "<U4", "<M8[s]", "|V3", "<i2", "<f16"]
    text_ = head.decode("latin1")
    if draws.random() < 0.5:
        text_ = re.sub(r"\([^()]*\)", draws.choice(shapes), text_, count=1)
    else:
        text_ = re.sub(r"'[<>|=][^']*'", f"'{draws.choice(kinds)}'", text_, count=1)
    new = text_.encode("latin1")
    return content[:8] + struct.pack("<H", len(new)) + new + body


def pickled(content: bytes, change: Change, draws: random.Random) -> bytes:
    """A pickle: one piece of it is another piece, or a global is another one."""
    kind = draws.randrange(4)
    globals_ = [*re.finditer(rb"c([\w.]+)\n([\w.]+)\n", content)]
    if kind == 0 and globals_:
        one, other = draws.choice(globals_), draws.choice(globals_)
        new = draws.choice([other[0], *_GLOBALS])
        return content[: one.start()] + new + content[one.end() :]
    if kind == 1 and len(content) > 8:
        start, length = draws.randrange(len(content)), draws.randrange(1, 24)
        place = draws.randrange(len(content))
        return content[:place] + content[start : start + length] + content[place:]
    if kind == 2 and len(content) > 2:
        place = draws.randrange(len(content))
        number = draws.choice(
            [
                b"K\xff",
                b"M\xff\xff",
                b"J\xff\xff\xff\x7f",
                b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
                b"N",
                b"]",
                b"}",
                b"G\x7f\xf0" + bytes(6),
            ]
        )
        return content[:place] + number + content[place + draws.randrange(5) :]
    return change(content)


_GLOBALS = tuple(
    f"c{module}\n{name}\n".encode()
    for module, name in (
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch", "FloatStorage"),
        ("torch", "LongStorage"),
        ("torch", "BoolStorage"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch", "bfloat16"),
        ("collections", "OrderedDict"),
        ("collections", "Counter"),
        ("types", "SimpleNamespace"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("builtins", "exec"),
        ("os", "system"),
        ("builtins", "set"),
        ("builtins", "bytearray"),
    )
)


def png(content: bytes, change: Change, draws: random.Random) -> bytes:
    """A picture: one chunk is changed, dropped or doubled; checksums are right again."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return change(content)
    chunks, place = [], 8
    while place + 12 <= len(content):
        length = struct.unpack(">I", content[place : place + 4])[0]
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return change(content)
    which = draws.randrange(len(chunks))
    name, inner = chunks[which]
    kind = draws.randrange(6)
    if kind == 0:
        del chunks[which]
    elif kind == 1:
        chunks.insert(which, draws.choice(chunks))
    elif kind == 2:
        chunks.insert(
            1,
            (
                draws.choice([b"tRNS", b"PLTE", b"iTXt", b"zTXt", b"gAMA", b"eXIf", b"acTL", b"iCCP", b"pHYs"]),
                change(b"abcdef"),
            ),
        )
    elif name == b"IDAT" and kind == 3:
        chunks[which] = (name, zlib.compress(change(_inflated(inner))))
    else:
        chunks[which] = (name, change(inner))
    body = [struct.pack(">I", len(one)) + kind_ + one + struct.pack(">I", zlib.crc32(kind_ + one)) for kind_, one in chunks]
    return content[:8] + b"".join(body)


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, 100_000)
    except zlib.error:
        return content


def plain(content: bytes, change: Change, draws: random.Random) -> bytes:
    """Bytes."""
    return change(content)


def bundle(content: bytes, change: Change, draws: random.Random) -> bytes:
    """A folder: one file is changed, dropped, renamed, doubled or replaced by a link."""
    parts = members(content)
    if not parts:
        return change(content)
    name = draws.choice([*parts])
    kind = draws.randrange(12)
    if kind == 0:
        del parts[name]
    elif kind == 1:
        other = draws.choice([*parts, *_NAMES])
        parts[draws.choice([other, f"{other}x", f"x/{other}", other.rpartition("/")[2]])] = parts.pop(name)
    elif kind == 2:
        parts[draws.choice([*parts, f"{name}0", *_NAMES])] = parts[name]
    elif kind == 3:
        parts[f"{name} -> {draws.choice(['/dev/null', '..', '.', name, '/etc/hostname', draws.choice([*parts])])}"] = b""
    else:
        parts[name] = by_name(name)(parts[name], change, draws)
    return pack(parts)


def by_name(name: str) -> Mutator:
    """The mutator for a file of that name."""
    ending = name.rpartition(".")[2].lower()
    kinds: dict[str, Mutator] = {
        **dict.fromkeys(("json", "toml", "txt", "config", "result"), text),
        **dict.fromkeys(("npz", "pt", "ckpt", "pth"), torch_or_zip),
        "npy": npy,
        "pkl": pickled,
        "png": png,
    }
    return kinds.get(name.rpartition("/")[2], kinds.get(ending, plain))


def torch_or_zip(content: bytes, change: Change, draws: random.Random) -> bytes:
    """What torch saves: an archive, or from old versions pickles in a row."""
    return archive(content, change, draws) if content[:2] == b"PK" else pickled(content, change, draws)


def mutator_of(file: str | None) -> Mutator:
    """The mutator for the bytes of a target."""
    if file is None:
        return bundle
    return png if file == "hostile" else by_name(file)
