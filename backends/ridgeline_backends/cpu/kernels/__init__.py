"""Native kernels of the CPU backend: C sources, their build, and the library as Python sees it."""
