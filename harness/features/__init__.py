"""What is computed once and used by every cell: token ids, and pooled features of a frozen backbone."""
