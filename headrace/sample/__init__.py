"""A small invented shop for a first look: 60 products, 200 visitors, two months.

Begin with `fill.py`.
"""
