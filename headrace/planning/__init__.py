"""What an installation of some size needs, computed from measured costs.

It may import nothing of the product. Begin with `plan`, the arithmetic; `costs` is what it multiplies, `load` what is
asked of it.
"""
