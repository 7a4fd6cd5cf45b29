"""The REST interface, the explorer page and the events API, over FastAPI and uvicorn.

It may import graphql (which is served on the same port), engine and what lies below; only app imports it.
Begin with `app.py`; `fast_protocol.py` is the short way of the two paths that are requested most.
"""
