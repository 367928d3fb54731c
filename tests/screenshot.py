"""A picture of a report's first screen: python -m tests.screenshot REPORT.html PICTURE.png [WIDTH HEIGHT [PANEL]]."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from tests.browser import chromium, load


def main(page: str, picture: str, width: str = "1440", height: str = "900", panel: str = "0") -> None:
    """Write the picture as PNG; `panel` is a position in the chooser."""
    size = {"width": int(width), "height": int(height)}
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), **size) as browser:
        load(browser, Path(page).resolve())
        choose = (
            "const s = document.getElementById('panel'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
        )
        browser.execute_script(choose, panel)
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        Path(picture).write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
