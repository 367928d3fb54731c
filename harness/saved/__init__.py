"""Fitted methods as folders in Hugging Face's formats, complete for prediction and without pickle."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
