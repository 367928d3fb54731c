"""Metrics as `evaluate` modules that need no network, each with its direction, its range and its statistics per row.

`evaluate.load` fetches a script from the hub; these are the same interface over scikit-learn, sacrebleu and
rouge-score, kept in the project. There is one file per family of inputs: class indices (`classification`), answers to
questions (`spans`), any texts (`text`) or likelihoods (`likelihood`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
