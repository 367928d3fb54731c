"""Published sites: several reports as static pages, with a permanent address for each figure and table."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
