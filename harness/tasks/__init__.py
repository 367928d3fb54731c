"""Kinds of task, one file each: how a row becomes inputs, what the head is, how a prediction is scored."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
