"""Around a plan: what load does to its options, what else the money rents, and pictures of it."""
