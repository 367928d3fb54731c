"""Token ids and pooled features of a frozen backbone, computed once and shared by all cells."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
