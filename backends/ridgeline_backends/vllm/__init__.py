"""vLLM in the place of our engine, where it is installed. Imported when asked for."""
