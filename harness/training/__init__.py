"""The one training loop, its batches, and budgets that learning-rate schedules follow."""
