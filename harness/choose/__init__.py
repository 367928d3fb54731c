"""Find, fit and save the best method for a user's own data within a time budget."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
