"""Compare ways of adapting a pretrained transformer, and say which fits a budget."""

__version__ = "0.1.0"
