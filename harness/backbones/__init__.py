"""Pretrained transformers, pinned: found by name, verified by content, loaded with transformers."""
