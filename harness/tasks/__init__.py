"""Kinds of task, one file each: how rows become inputs, which head answers, and how predictions are scored."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
