"""`python -m flowhooks` is `flowhooks`."""

from flowhooks.cli import main

main(prog_name="flowhooks")
