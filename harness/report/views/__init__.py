"""The tables and figures of the report, one file each; a file adds its view to the registry in `base`."""
