"""Endpoints and their replicas: verbs, decisions, and the reconcilers that apply them."""
