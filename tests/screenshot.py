"""A picture of a report's page: python -m tests.screenshot REPORT.html PICTURE.png [WIDTH]."""

from __future__ import annotations

import base64
import sys
import tempfile
import time
from pathlib import Path

from tests.browser import chromium, resize


def main(page: str, picture: str, width: str = "1200") -> None:
    """Write the page from its short answer to its budget panel."""
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        browser.get(Path(page).resolve().as_uri())
        resize(browser, int(width), 1200)
        time.sleep(2)
        ends = "['answer', 'table'].map(id => document.getElementById(id).getBoundingClientRect().top + scrollY)"
        top, bottom = browser.execute_script(f"return {ends}")
        clip = {"x": 0, "y": top, "width": int(width), "height": bottom - top, "scale": 1}
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        Path(picture).write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
