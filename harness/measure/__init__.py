"""Measure every figure of a record's cost: time, memory, operations and energy; name devices and note provenance."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
