"""Load, split and nest data sets: what a row is, which rows are the test, which rows a size draws.

`spec` says what a task's data are; `source` loads them (mirror, hub, files, or embedded in the interpreter); `table`
reads the user's own file; `rows` gives rows an identity; `sampling` draws them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
