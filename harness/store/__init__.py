"""Keep records: in SQLite or PostgreSQL, with claims on cells that run; read them back, import and forget them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
