"""Files of shops become events: reading, mapping, presets, what was understood, loading in time order.

Begin with `plan.py`.
"""
