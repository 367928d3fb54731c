"""Passwords in the URLs of stores: no message, report or record may show one."""

from __future__ import annotations

import re

MASK = "***"

_WORDS = "password|passwd|passphrase|pwd|secret"
_NAMED = re.compile(rf"(?i)((?:^|[?&;,\s\"'(])[\w.%+-]*(?:{_WORDS})=)[^&;\s\"'#)]+")
"""A secret that has a name: `?password=...`, `password=...` in a connection string."""

_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/+[^/\s:@]*:)[^\s]*@")
"""A URL with a password somewhere in a text; a password may hold an unescaped '@' or '/'."""

_WHOLE = re.compile(r"(?s)^([A-Za-z][A-Za-z0-9+.-]*:/+[^/:@]*:).*@")
"""The same where the text is the URL and nothing else, so that a password may hold a blank too."""


def is_secret_name(name: str) -> bool:
    """Return whether a parameter of this name holds a secret."""
    return re.search(f"(?:{_WORDS})$", name, re.IGNORECASE) is not None


def mask_store(source: object) -> str:
    """Return the path or URL of a store as messages may show it, with every password replaced by `***`."""
    return _NAMED.sub(rf"\1{MASK}", _WHOLE.sub(rf"\1{MASK}@", str(source)))


def mask_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return a text with the passwords of all URLs in it, and all of `secrets`, replaced by `***`."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _NAMED.sub(rf"\1{MASK}", _IN_TEXT.sub(rf"\1{MASK}@", text))
