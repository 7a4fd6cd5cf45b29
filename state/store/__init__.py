"""The store of rows: its contract, Redis with the commit protocol, and reads for servers that wait for nothing.

It may import `state.rows` and schemas; Redis's client is imported here and nowhere else but in `state.embedded_redis`.
Begin with `contract.py`; the commit, step by step, stands at the top of `redis_commits.py`.
"""
