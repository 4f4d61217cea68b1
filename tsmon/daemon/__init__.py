"""The running process: it builds the parts, starts and stops them."""
