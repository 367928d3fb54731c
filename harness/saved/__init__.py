"""Fitted methods as models to keep: a folder in Hugging Face's formats, and what predicting again needs. No pickle."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
