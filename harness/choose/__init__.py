"""Spend a budget of time on a user's own data, and come back with the best method trained."""

from __future__ import annotations

from harness.choose.choosing import Chosen, choose
from harness.choose.tried import Tried

__all__ = ["Chosen", "Tried", "choose"]
