"""Costs of cells before they run: from records, from probes, from a closed form."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
