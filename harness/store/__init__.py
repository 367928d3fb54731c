"""Store records in SQLite or PostgreSQL with claims on running cells, and read, import, export and forget them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
