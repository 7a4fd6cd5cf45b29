from hypothesis import settings

# The first example of a test compiles kernels, so a wall-clock deadline says nothing.
settings.register_profile("headrace", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("headrace")
