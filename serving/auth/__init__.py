"""Who may do what: API keys, their scopes and rates, and the table of what each route needs.

It may import state's settings; no other room of serving.
Begin with `access.py`, the table.
"""
