"""Logs on disk, CloudWatch samples, Prometheus metrics of the control plane's process."""
