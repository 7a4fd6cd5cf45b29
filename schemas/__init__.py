from schemas.compiled.cache import use_kernels_of_these_sources

use_kernels_of_these_sources()
