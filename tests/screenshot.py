"""A picture of a report's first screen: python -m tests.screenshot REPORT.html PICTURE.png [WIDTH HEIGHT]."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from tests.browser import chromium, load


def main(page: str, picture: str, width: str = "1440", height: str = "900") -> None:
    """Write the picture as PNG."""
    size = {"width": int(width), "height": int(height)}
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), **size) as browser:
        load(browser, Path(page).resolve())
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        Path(picture).write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
