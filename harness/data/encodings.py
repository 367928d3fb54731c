"""Decode a text file, or refuse it with the command that converts it.

Only Unicode is read. A regional encoding could only be guessed, and a wrong guess garbles texts without an error, so
such a file is refused. The message names the likely encoding and the exact command.
"""

from __future__ import annotations

import codecs
import gzip
import shlex
import unicodedata
import zlib
from pathlib import Path

from harness.support import DataError

MOST_UNPACKED_BYTES = 2**30
"""Maximum unpacked size of a compressed file."""

PACKED = ".gz"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark equals its first half
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_REGIONAL = (("windows-1252", "cp1252"), ("macintosh", "mac_roman"), ("cp850", "cp850"))
"""Encodings of Western European text: iconv's name and Python's."""

_PLAUSIBLE = frozenset("“”‘’‚„–—…•€£§©®™°«»¡¿·´½¼¾²³µ×÷ªº¢†\u00a0")
"""Characters outside ASCII, other than letters, in Western European texts."""

_LEAST_PLAUSIBLE = 0.9
_MOST_ACCENTED = 0.4
"""Share of letters outside ASCII above which a text is in no Western European language."""

_LONG_RUN = 3
_MOST_IN_RUNS = 0.1
"""Share of accented letters in runs of `_LONG_RUN` above which a text is in another alphabet, such as Cyrillic."""

_CHUNK = 2**20
_LOOKED_AT = 2**20


def read_text(path: Path) -> str:
    """Return a file's text: UTF-8, or UTF-16 or UTF-32 with a byte-order mark; unpacked where it ends in `.gz`.

    Raises:
        DataError: the file cannot be read or unpacked, or has another encoding. The message names the place and the
            command that converts the file.
    """
    raw = _unpacked(path) if path.suffix.lower() == PACKED else _bytes_of(path)
    mark, encoding = next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start + len(mark)
        line = raw.count(b"\n", 0, start) + 1
        raise DataError(
            f"{path}: line {line} is not {encoding.upper()}: byte 0x{raw[start]:02x} at offset {start}. "
            f"{_cure(path, raw) if not mark else 'The file is damaged; save it again as UTF-8.'}"
        ) from None
    if not mark and (wide := _wide(raw)) is not None:
        raise DataError(
            f"{path}: the file is {wide.upper()} without a byte-order mark, and not UTF-8. Convert it: "
            f"{_command(path, wide)}"
        )
    return text


def control_characters(texts: list[str]) -> list[int]:
    """Return the positions of texts with characters from U+0080 to U+009F.

    They appear in place of Windows-1252 quotes, dashes and euro signs after a conversion as ISO-8859-1.
    """
    return [at for at, text in enumerate(texts) if not text.isascii() and any("\x80" <= c <= "\x9f" for c in text)]


def repaired(text: str) -> str | None:
    """Return a text decoded as Windows-1252 instead of ISO-8859-1; None if the result is implausible."""
    try:
        found = text.encode("latin-1").decode("cp1252")
    except UnicodeError:
        return None
    return found if _is_plausible(found) else None


def repair_command(path: str) -> str:
    """Return the command that repairs a file converted from ISO-8859-1 instead of Windows-1252."""
    source, target = shlex.quote(path), shlex.quote(_converted(Path(path)))
    first = f"gzip -dc {source} | iconv" if path.lower().endswith(PACKED) else "iconv"
    last = "" if path.lower().endswith(PACKED) else f" {source}"
    return f"{first} -f utf-8 -t iso-8859-1{last} | iconv -f windows-1252 -t utf-8 > {target}"


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from error


def _unpacked(path: Path) -> bytes:
    """Unpack a gzip file in pieces, and refuse one that is too large before it fills the memory."""
    parts, size = [], 0
    try:
        with gzip.open(path) as handle:
            while part := handle.read(_CHUNK):
                size += len(part)
                if size > MOST_UNPACKED_BYTES:
                    raise DataError(
                        f"{path}: the file unpacks to more than {MOST_UNPACKED_BYTES / 2**30:g} GiB. Unpack it "
                        "yourself, or take a part of its rows."
                    )
                parts.append(part)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file cannot be unpacked as gzip ({error}).") from error
    return b"".join(parts)


def _wide(raw: bytes) -> str | None:
    """Return `utf-16le` or `utf-16be` for UTF-16 text without a byte-order mark; None otherwise.

    In UTF-16, separators and line breaks have a zero byte whatever the language; UTF-8 has none.
    """
    head = raw[: _LOOKED_AT // 2 * 2]
    if b"\0" not in head:
        return None
    for encoding, separators in (
        ("utf-16le", (b"\n\0", b",\0", b"\t\0", b";\0", b"{\0")),
        ("utf-16be", (b"\0\n", b"\0,", b"\0\t", b"\0;", b"\0{")),
    ):
        if len(raw) % 2 or not any(separator in head for separator in separators):
            continue
        try:
            text = head.decode(encoding)
        except UnicodeDecodeError:
            continue
        first = text.split("\n", 1)[0].rstrip("\r")
        if first and "\0" not in text and all(c.isprintable() or c == "\t" for c in first) and first[:1].isascii():
            return encoding
    return None


def _cure(path: Path, raw: bytes) -> str:
    """Return advice for a file that is not UTF-8, as a sentence."""
    wide = _wide(raw)
    if wide is not None:
        return f"It looks like {wide.upper()}. Convert it: {_command(path, wide)}"
    for name, python in _REGIONAL:
        try:
            text = raw.decode(python)
        except UnicodeDecodeError:
            continue
        if _is_plausible(text):
            return f"It looks like {name.capitalize()}. Convert it: {_command(path, name)}"
    return (
        "Its encoding is not clear. Save it as UTF-8 where it comes from ('CSV UTF-8' in a spreadsheet), or convert it "
        f"from its encoding, if you know it: {_command(path, 'ENCODING')}"
    )


def _is_plausible(text: str) -> bool:
    """Return whether the characters outside ASCII are few and fit a Western European text."""
    letters = accented = others = odd = 0
    run = in_runs = 0
    before = " "
    for c in text[:_LOOKED_AT]:
        if c.isascii():
            letters += c.isalpha()
        elif c.isalpha() and unicodedata.name(c, "").startswith("LATIN ") and c not in "ªº":
            accented += 1
            odd += c.isupper() and before.islower()  # as in `cafŽ`
            run += 1
            in_runs += _LONG_RUN if run == _LONG_RUN else run > _LONG_RUN
            before = c
            continue
        else:
            others += 1
            odd += c not in _PLAUSIBLE
        run = 0
        before = c
    if accented + others == 0:
        return True
    fits = odd <= (1 - _LEAST_PLAUSIBLE) * (accented + others)
    is_latin = in_runs <= _MOST_IN_RUNS * accented
    return fits and is_latin and accented <= _MOST_ACCENTED * max(1, letters + accented)


def _converted(path: Path) -> str:
    """Return the path of a converted file: `t.csv` or `t.csv.gz` becomes `t-utf8.csv`."""
    plain = path.with_suffix("") if path.suffix.lower() == PACKED else path
    return str(plain.with_name(f"{plain.stem}-utf8{plain.suffix}"))


def _command(path: Path, encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    source, target = shlex.quote(str(path)), shlex.quote(_converted(path))
    if path.suffix.lower() == PACKED:
        return f"gzip -dc {source} | iconv -f {encoding} -t utf-8 > {target}"
    return f"iconv -f {encoding} -t utf-8 {source} > {target}"
