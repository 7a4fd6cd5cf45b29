"""The command line: a file a command, and `main`, the table of them.

It may import everything. Begin with `main`; each other file has a function `command` with the command's options, and
above it the functions that do the work.
"""
