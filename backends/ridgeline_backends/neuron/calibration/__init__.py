"""Published rows against predictions: reading rows, fitting coefficients, scoring, reports."""
