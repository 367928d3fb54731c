"""Run, plan, report, compare, advise and choose from Python: the functions that the command line calls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
