"""Imported by the fork server of `warm_workers`, once: imports what workers need."""

from tests.warm_workers import import_all

import_all()
