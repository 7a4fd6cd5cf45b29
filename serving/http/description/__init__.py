"""The OpenAPI document: what REST takes and answers, and the page that shows it.

It may import auth, request and rules; `serving.http.app` serves it.
Begin with `operations.py`, the table.
"""
