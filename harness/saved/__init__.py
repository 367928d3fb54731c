"""Fitted methods as models to keep: a folder in Hugging Face's formats, and what predicting again needs. No pickle."""

from __future__ import annotations

from harness.saved.model import SavedModel, load_model

__all__ = ["SavedModel", "load_model"]
