"""Kinds of task, one file each: how a row becomes inputs, what the head is, how a prediction is scored."""

from __future__ import annotations

from harness.tasks.base import Kind, Rows, Source, Task, kinds

__all__ = ["Kind", "Rows", "Source", "Task", "kinds"]
