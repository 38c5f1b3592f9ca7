"""Run the command `flowhooks` by `python -m flowhooks`."""

from flowhooks.cli.main import main

main(prog_name="flowhooks")
