"""Load data sets, split off test rows, and draw training rows by size.

`spec` describes a task's data; `source` loads them (mirror, hub, files, or embedded in the interpreter); `table` reads
the user's own file; `rows` gives rows an identity; `sampling` draws them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
