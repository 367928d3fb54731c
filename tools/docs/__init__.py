"""Generate the reference pages in `docs/reference` from the code, the command line, the registries and the results."""
