"""Parse arguments, call the functions of `harness`, and print. Nothing heavy is imported before a command runs."""
