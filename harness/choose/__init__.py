"""Spend a budget of time on a user's own data, and come back with the best method trained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
