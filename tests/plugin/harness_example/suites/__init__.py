"""Suites: each YAML file of this folder."""
