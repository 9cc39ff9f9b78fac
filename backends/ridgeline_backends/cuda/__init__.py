"""The backend for NVIDIA GPUs: models of this package in torch's operations, on one or several."""
