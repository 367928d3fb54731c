"""Reports: records to tables, plots and a page, computed first and drawn after."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
