"""Keys and signatures: SigV4 verification, root, bearer and internal keys."""
