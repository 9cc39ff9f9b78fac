"""Training, processing and transform jobs: verbs, plans, and what drives their runners."""
