"""Parse arguments, call the Python functions of `harness`, and print. Nothing heavy is imported before a command runs."""
