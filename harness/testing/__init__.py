"""Contract tests of methods, kinds of task and metrics, for this package and for authors of plug-ins.

They make everything that they need: tiny backbones with random weights, and tables of made-up texts.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
