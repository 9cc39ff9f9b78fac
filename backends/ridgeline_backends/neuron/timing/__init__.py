"""From programs to seconds: work on a machine, coefficients, predictions with intervals."""
