import schemas as schemas  # says where compiled kernels are kept
