"""The items of the shop as columns: ids, titles, categories, prices, stock, attributes.

It may import request (for columns) and state.
Begin with `catalogue.py`.
"""
