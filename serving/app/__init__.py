"""The server as a process: wiring, following what is new, and compiling before the first request.

It may import every room of serving; nothing imports it but the command line.
Begin with `server.py`, then `follower.py`, which keeps the snapshot up to date.
"""
