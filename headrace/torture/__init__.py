"""Faults on the real parts, and the comparison of what is left with an undisturbed run, byte for byte.

It may import everything but the command line and the benchmarks. Begin with `run`; `faults` has a function a
fault, `stage` the parts they are played on, `stream` the events.
"""
