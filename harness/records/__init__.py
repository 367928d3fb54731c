"""Plain data: cells, budgets, predictions and records, which load without torch and without any method."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
