"""`python -m tsmon` is `tsmon`."""

from tsmon.cli import main

main(prog_name="tsmon")
