"""The beginning of programs that tests run: what says which kernels are compiled, and for which types."""

COMPILED = """
import sys
from numba.core.registry import CPUDispatcher

def compiled():
    ours = ("schemas", "state", "flows", "serving")
    modules = [module for name, module in list(sys.modules.items()) if name.split(".")[0] in ours]
    kernels = {kernel for module in modules for kernel in vars(module).values() if isinstance(kernel, CPUDispatcher)}
    return {f"{one.py_func.__module__}.{one.py_func.__name__}{types}" for one in kernels for types in one.signatures}
"""
