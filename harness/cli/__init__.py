"""The command line: parse arguments, call one function, print. Nothing heavy is imported before a command runs."""
