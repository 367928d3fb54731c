"""Make the table of published encoders that the package ships, from a table of MTEB's results.

Run `python -m tools.published TABLE.csv`. The table has one row for each encoder and task, with the columns that
`harness import --format mteb` reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.store.importing.mteb import read_mteb_table
from harness.store.published import written

SOURCE = {
    "source": "github.com/embeddings-benchmark/results",
    "commit": "f4cc6c8b",
    "measured_by": "MTEB",
    "licence": "The repository names no licence for its figures; MTEB's code is Apache-2.0. Only facts are taken.",
    "protocol": "frozen encoder, logistic regression on a few texts a class, mean accuracy over draws, test split",
    "citation": "Muennighoff et al., MTEB: Massive Text Embedding Benchmark, EACL 2023",
}


def main() -> None:
    """Write the shipped file."""
    out = Path(__file__).parents[1] / "harness" / "store" / "published" / "mteb-classification.jsonl"
    out.write_text(written(SOURCE, read_mteb_table(Path(sys.argv[1]))), encoding="utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
