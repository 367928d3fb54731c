"""Clocks, memory, floating-point operations, devices and provenance: every figure of a record's `cost`."""
