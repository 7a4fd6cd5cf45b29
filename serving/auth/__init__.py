"""Access control: API keys, their scopes and rates, and the table of scopes that routes need.

It may import state's settings; no other room of serving.
Begin with `access.py`, the table.
"""
