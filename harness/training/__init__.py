"""The one training loop, its batches, the forms of answers, and the budgets that schedules follow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
