"""From a model's config and the settings to compile it with to programs. Imports no torch."""
