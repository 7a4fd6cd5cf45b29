"""From candidates to the list that is shown: rules applied, caps, variety, reasons, contributions, the cursor.

It may import candidates and what lies below.
Begin with `answers.py` (one request, in the plain way) and `batch_lists.py` (a batch at once; tests hold both equal).
"""
