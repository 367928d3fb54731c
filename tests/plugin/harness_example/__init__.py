"""An example of a package that adds to the harness: see its `pyproject.toml` for the entry points."""
