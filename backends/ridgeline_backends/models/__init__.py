"""Model families: their configurations, the tensors they need, and their arithmetic."""
