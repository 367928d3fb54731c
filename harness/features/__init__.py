"""What is computed once and used by every cell: token ids, and pooled features of a frozen backbone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
