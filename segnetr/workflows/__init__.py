"""One function per command, and the code that only this command uses."""
