"""Trackers, one file each. A file imports its tracker's library inside its functions."""
