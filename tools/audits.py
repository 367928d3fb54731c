"""Write the list of default settings that the reference results show to be behind, which the package ships.

Run `python -m tools.audits`. Defaults that are not behind are left out: most of these results chose the defaults
themselves, so they are no audit of them. Audits that `harness audit-defaults --write` added stay.
"""

from __future__ import annotations

from pathlib import Path

from harness.api.auditing import default_configs
from harness.records.audits import write_audits
from harness.report import audit
from harness.store import reference_grids


def main() -> None:
    """Add the defaults that are behind to the shipped file."""
    out = Path(__file__).parents[1] / "harness" / "records" / "audited_defaults.json"
    behind = [one for one in audit(reference_grids(), default_configs()).defaults if one.is_behind]
    write_audits(behind, out)
    for one in behind:
        print(f"{one.method} on {one.backbone}: {one.said}")


if __name__ == "__main__":
    main()
