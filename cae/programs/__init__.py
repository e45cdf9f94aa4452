"""One start of a program."""
