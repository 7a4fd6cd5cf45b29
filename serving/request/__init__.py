"""Requests, answers and the language of conditions: no wire format, no store, no clock.

It may import schemas only.
Begin with `requests.py` and `answer.py`.
"""
