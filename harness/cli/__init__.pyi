# No other room uses the command line.
