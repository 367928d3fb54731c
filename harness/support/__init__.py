"""Provide small services to all rooms: errors, registries, durations, texts, files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
