"""Format values and texts for readers: figures with units, names that are safe to show, masked passwords."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

ABSENT = "–"
"""Text for a missing value."""

MASKED = "***"
"""Text in place of a password."""

_SECRETS = "password|passwd|passphrase|pwd|secret"
_NAMED_SECRET = re.compile(rf"(?i)((?:^|[?&;,\s\"'(])[\w.%+-]*(?:{_SECRETS})=)[^&;\s\"'#)]+")
"""Secret with a name: `?password=...`, `password=...` in a connection string."""

_PASSWORD_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/+[^/\s:@]*:)[^\s]*@")
"""URL with a password inside a text; a password may hold an unescaped '@' or '/'."""

_PASSWORD_IN_URL = re.compile(r"(?s)^([A-Za-z][A-Za-z0-9+.-]*:/+[^/:@]*:).*@")
"""URL with a password that is the whole text, so that the password may hold a blank too."""


def plain(text: str) -> str:
    """Return a text as one line without line breaks, terminal escapes and changes of writing direction."""
    visible = "".join(
        " " if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") else letter for letter in text
    )
    return " ".join(visible.split())


def markdown(text: str) -> str:
    """Return a text escaped for Markdown and HTML, including cells of tables."""
    escaped = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = re.sub(r"([\\`*\[\]|~$])", r"\\\1", escaped)
    escaped = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped)  # within a word, `_` means no emphasis
    escaped = re.sub(r"^([#+=-])", r"\\\1", escaped)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)  # a number of a list


def slug(text: str) -> str:
    """Return a text as part of a file's name: lower-case letters, digits and hyphens, at most 60 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "unnamed"


def present(value: Any) -> bool:
    """Return whether a value of a data frame is present."""
    # Without pandas.isna, to avoid the import: NaN is not equal to itself, and pandas.NA is recognised by its type.
    return value is not None and type(value).__name__ != "NAType" and bool(value == value)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 cell`, `1,200 cells`; `plural` where it is not the noun with an s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def score(value: Any) -> str:
    """Format a metric: three decimals within -1 to 1, two up to 10, one up to 1,000, and none above.

    A value that three decimals would show as 0 has two significant digits, down to 0.000001.
    """
    if not present(value):
        return ABSENT
    size = abs(value)
    if 1e-6 <= size < 5e-4:
        return f"{value:.{1 - math.floor(math.log10(size))}f}"
    return f"{value:.{3 if size <= 1 else 2 if size < 9.995 else 1 if size < 999.95 else 0}f}"


def interval(low: Any, high: Any) -> str:
    """Format the ends of an interval: `0.790–0.831`."""
    return f"{score(low)}–{score(high)}" if present(low) and present(high) else ""


def mean_count(value: float) -> str:
    """Format a count that may be a mean: `12`, `1,204.5`."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def quantities(values: Iterable[Any]) -> list[str]:
    """Format numbers of one unit with the same decimals, so that the largest has four significant digits."""
    given = list(values)
    largest = max((abs(value) for value in given if present(value)), default=0.0)
    n = max(0, 3 - math.floor(math.log10(largest))) if 0 < largest < math.inf else 0
    if n > 12 or largest >= 1e15:
        return [f"{value:.3e}" if present(value) else ABSENT for value in given]
    return [f"{value:z,.{n}f}" if present(value) else ABSENT for value in given]


def seconds(value: Any) -> str:
    """Format seconds in the most readable unit: `4 ms`, `1.2 s`, `65 s`, `12.5 min`, `3.1 h`."""
    if not present(value):
        return ABSENT
    if value < 0.0995:
        return f"{value * 1000:.0f} ms" if value >= 0.001 else ("0 s" if value == 0 else "<1 ms")
    if value < 119.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def milliseconds(value: Any) -> str:
    """Format a latency with three digits: `0.553 ms`, `12.3 ms`, `1.2 s`."""
    if not present(value) or value >= 1:
        return seconds(value)
    return f"{float(f'{1000 * value:.3g}'):g} ms"


def memory(value: Any) -> str:
    """Format bytes in powers of ten: `940 MB`, `1.3 GB`."""
    if not present(value):
        return ABSENT
    if value < 1e6:
        return f"{value / 1e3:.0f} kB"
    return f"{value / 1e6:.0f} MB" if value < 999.5e6 else f"{value / 1e9:.1f} GB"


def energy(value: Any) -> str:
    """Format joules: `840 J`, `12.3 kJ`, `4.1 MJ`."""
    if not present(value):
        return ABSENT
    if value < 999.5:
        return f"{value:.0f} J" if value >= 9.95 else f"{value:.1f} J"
    return f"{value / 1e3:.1f} kJ" if value < 999.5e3 else f"{value / 1e6:.1f} MJ"


def price(value: Any) -> str:
    """Format an amount of any currency: at least two significant digits, and all before the point."""
    if not present(value):
        return ABSENT
    return f"{value:,.2f}" if value >= 0.995 or value == 0 else f"{value:.2g}" if value >= 1e-4 else "<0.0001"


def forgetting(value: Any, unit: Any) -> str:
    """Format how far a fit has moved the transformer, with its unit: `0.31 (nats per token)`, `0.12 (1 - CKA)`."""
    if not present(value):
        return ABSENT
    if value == 0:
        return "0"
    return f"{value:.3f} ({unit})" if abs(value) < 0.9995 else f"{value:.2f} ({unit})"


def percent(value: Any) -> str:
    """Format a share: `42 %`, `0.8 %`."""
    if not present(value):
        return ABSENT
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{100 * value:.1f} %"


def number(value: Any) -> str:
    """Format a count of parameters: `0`, `4,620`, `78.3k`, `22.7M`."""
    if not present(value):
        return ABSENT
    if value < 10_000:
        return f"{value:,.0f}"
    if value < 999_950:
        return f"{value / 1e3:.1f}k"
    return f"{value / 1e6:.1f}M" if value < 999.95e6 else f"{value / 1e9:.2f}B"


def size(n_train: int, draw: str, n_per_class: Any = None) -> str:
    """Format a training size: `2,048`, or `96 (8/class)` if the classes are balanced."""
    if draw != "balanced":
        return f"{n_train:,}"
    return f"{n_train:,} ({n_per_class}/class)" if present(n_per_class) else f"{n_train:,} (balanced)"


def is_secret_name(name: str) -> bool:
    """Return whether a parameter of this name holds a secret."""
    return re.search(f"(?:{_SECRETS})$", name, re.IGNORECASE) is not None


def mask_store(source: object) -> str:
    """Return the path or URL of a store for messages, with every password replaced by `***`."""
    return _NAMED_SECRET.sub(rf"\1{MASKED}", _PASSWORD_IN_URL.sub(rf"\1{MASKED}@", str(source)))


def mask_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return a text with the passwords of all URLs in it, and all of `secrets`, replaced by `***`."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASKED)
    return _NAMED_SECRET.sub(rf"\1{MASKED}", _PASSWORD_IN_TEXT.sub(rf"\1{MASKED}@", text))
