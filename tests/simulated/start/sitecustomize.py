"""Start a process with the simulated device; Python imports this module first, and torch imports the rest.

The library must be loaded before torch asks which devices there are. `tests.simulated.cuda` needs torch.
"""

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path


def _load_library():
    lib = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(lib / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(os.environ["SIMULATED_LIBRARY"])


class _Torch(importlib.abc.MetaPathFinder):
    """Finds torch, once: loads the library before it, and the simulation behind it."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        load = spec.loader.exec_module

        def exec_module(module):
            _load_library()
            load(module)
            importlib.import_module("tests.simulated.cuda").start()

        spec.loader.exec_module = exec_module
        return spec


if "SIMULATED_LIBRARY" in os.environ:
    sys.meta_path.insert(0, _Torch())
