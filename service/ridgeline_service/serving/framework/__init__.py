"""Model server of framework images: runs in the framework's interpreter, standard library only."""
