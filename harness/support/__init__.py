"""Small services that every room may use: errors, names to objects, durations, files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
