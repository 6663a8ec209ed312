"""`python -m segnetr.cli`: the command line where no script is installed."""

from .start import main

main()
