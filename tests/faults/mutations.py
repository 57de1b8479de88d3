"""Files with a few random changes: bits, bytes, numbers, lines, cuts, repeats; of JSON, its values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np

_NUMBERS = (b"0", b"-1", b"1e400", b"nan", b"4294967296", b"99999999999999999999", b"1.5", b"", b"x", b"65536")
_BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four changes of random kinds."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        data = _CHANGES[rng.integers(len(_CHANGES))](data, rng)
    return bytes(data)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """A place, in the first 400 bytes, where headers are, half of the time."""
    return int(rng.integers(max(1, min(len(data), 400) if rng.random() < 0.5 else len(data))))


def _flip(data, rng):
    if data:
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _overwrite(data, rng):
    at, size = _place(data, rng), int(rng.choice([1, 2, 4, 8]))
    data[at : at + size] = bytes([_BYTES[rng.integers(len(_BYTES))]]) * size
    return data


def _noise(data, rng):
    at = _place(data, rng)
    data[at : at + 8] = rng.bytes(8)
    return data


def _cut(data, rng):
    return data[: _place(data, rng)]


def _remove(data, rng):
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 40)) :]


def _repeat(data, rng):
    at = _place(data, rng)
    part = data[at : at + int(rng.integers(1, 40))]
    return data[:at] + part * int(rng.integers(2, 20)) + data[at:]


def _number(data, rng):
    """Another number in a text: headers of NRRD and MetaImage, JSON, XML."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:20000])))
    if not found:
        return data
    match = found[rng.integers(len(found))]
    return data[: match.start()] + _NUMBERS[rng.integers(len(_NUMBERS))] + data[match.end() :]


def _line(data, rng):
    """A line doubled, moved or removed."""
    lines = bytes(data).split(b"\n")
    at = int(rng.integers(len(lines)))
    line = lines.pop(at)
    for _ in range(int(rng.integers(3))):
        lines.insert(int(rng.integers(len(lines) + 1)), line)
    return bytearray(b"\n".join(lines))


_CHANGES: tuple[Callable, ...] = (_flip, _flip, _overwrite, _noise, _cut, _remove, _repeat, _number, _number, _line)


def mutated_json(text: bytes, rng: np.random.Generator) -> bytes:
    """JSON with a few of its values replaced by odd ones; one time in four its bytes are changed instead."""
    if rng.random() < 0.25:
        return mutated(text, rng)
    values = json.loads(text)
    for _ in range(rng.integers(1, 4)):
        parents = list(_containers(values))
        parent = parents[rng.integers(len(parents))]
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            continue
        key = keys[rng.integers(len(keys))]
        kind = rng.integers(5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[str(_odd(rng))[:20]] = parent.pop(key)
        else:
            parent[key] = _odd(rng)
    return json.dumps(values).encode()


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _odd(rng):
    odd = [None, True, 0, -1, 1, 3, 2**31, 10**9, 10**18, 0.5, -1e300, "", "x", "../x", "$1+1", "@a", "é" * 300, [], {}]
    odd += [[[]], [0, 0, 0], [2, 2, 2], [10**6] * 3, {"step": []}, [None], ["a", 1], [1] * 50]
    return odd[rng.integers(len(odd))]
