"""The GraphQL interface over strawberry, with bounds on what one query may cost.

It may import engine and what lies below; http mounts it.
Begin with `schema.py`.
"""
