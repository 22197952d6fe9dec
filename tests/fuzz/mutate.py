"""Seeded damage: bytes and texts to bytes and texts that are nearly right."""

import random
from collections.abc import Callable

_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    2**63 - 1,
    2**64 - 1,
)
_WORDS = (
    "", " ", "0", "-1", "1e309", "nan", "99999999999999999999", "true", "null", "~", "[]", "{}", "\0",
    "\u202e", "\ud800", "é", "%s%n", "../../../etc/passwd", "file:///etc/passwd", "${HOME}", "${", "&a", "*a",
    "<<", "!!python/none", "a" * 5000, "[" * 2000, "{a: " * 300, "\t", "'", '"', "\\", "::", "concat:a|b",
    "rtsp://u:p@h:99999/", "#", "\r\n\r\n",
)  # fmt: skip


def damaged(data: bytes, rng: random.Random, most: int = 12) -> bytes:
    """``data`` after one to ``most`` mutations, more often few than many."""
    for _ in range(min(most, 1 + int(rng.expovariate(0.5)))):
        data = rng.choice(_WAYS)(bytearray(data), rng)
    return data


def misspelt(text: str, rng: random.Random, most: int = 4) -> str:
    """The same for a text: words of it replaced, lines lost, repeated or swapped, letters damaged."""
    for _ in range(min(most, 1 + int(rng.expovariate(0.7)))):
        text = rng.choice(_TEXT_WAYS)(text, rng)
    return text


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, but every other time near the start, where headers are."""
    whole = len(data)
    return rng.randrange(max(1, min(whole, 512) if rng.random() < 0.5 else whole))


def _flip(data: bytearray, rng: random.Random) -> bytes:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, rng: random.Random) -> bytes:
    at = _place(data, rng)
    data[at : at + rng.choice((1, 2, 4, 16, 200))] = rng.randbytes(rng.choice((1, 2, 4, 16, 200)))
    return bytes(data)


def _number(data: bytearray, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 2, 4, 8))
    value = rng.choice(_NUMBERS) & (1 << 8 * size) - 1
    data[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: _place(data, rng)])


def _lose(data: bytearray, rng: random.Random) -> bytes:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 4, 188, 1000, 20_000))]
    return bytes(data)


def _repeat(data: bytearray, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((8, 188, 1000, 20_000))
    data[at:at] = data[at : at + size] * rng.choice((1, 2, 20))
    return bytes(data[: 4 << 20])


def _zero(data: bytearray, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((4, 100, 3000))
    data[at : at + size] = bytes(len(data[at : at + size]))
    return bytes(data)


def _move(data: bytearray, rng: random.Random) -> bytes:
    a, b, size = _place(data, rng), _place(data, rng), rng.choice((4, 32, 500))
    data[a : a + size] = data[b : b + size]
    return bytes(data)


_WAYS: tuple[Callable[[bytearray, random.Random], bytes], ...] = (
    _flip, _flip, _overwrite, _number, _number, _cut, _lose, _repeat, _zero, _move,
)  # fmt: skip


def _word(text: str, rng: random.Random) -> str:
    pieces = text.replace("\n", " \n ").split(" ")
    pieces[rng.randrange(len(pieces))] = rng.choice(_WORDS)
    return " ".join(pieces).replace(" \n ", "\n")


def _insert(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(_WORDS) + text[at:]


def _lines(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(3):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case _:
            rng.shuffle(lines)
    return "\n".join(lines)


def _letters(text: str, rng: random.Random) -> str:
    return damaged(text.encode("utf-8", "surrogatepass"), rng, 2).decode("utf-8", "replace")


def _digit(text: str, rng: random.Random) -> str:
    places = [at for at, letter in enumerate(text) if letter.isdigit()]
    if not places:
        return text
    at = rng.choice(places)
    return text[:at] + rng.choice("0123456789-.e") + text[at + 1 :]


_TEXT_WAYS: tuple[Callable[[str, random.Random], str], ...] = (
    _word, _insert, _lines, _letters, _digit, _digit, _digit,
)  # fmt: skip
