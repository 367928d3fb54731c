"""Clocks, memory, floating-point operations, devices and provenance: every figure of a record's `cost`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
