"""`python -m segnetr.cli`: the command line where no script is installed."""

from .main import main

main()
