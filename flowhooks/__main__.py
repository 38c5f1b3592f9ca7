"""`python -m flowhooks` is `flowhooks`."""

from flowhooks.cli.main import main

main(prog_name="flowhooks")
