"""The one training loop, its batches, and budgets that learning-rate schedules follow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
