"""Parts of a report's page."""

from __future__ import annotations

import json
import re


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def outside_scripts(page):
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
