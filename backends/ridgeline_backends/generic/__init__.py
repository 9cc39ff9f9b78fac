"""The slow path: any model that the transformers library generates with, run by that library.

Chosen where no code of ours knows an architecture or honours one of its settings. The only package
here that imports transformers, and it is imported only when it is needed. Code that comes with a
model is never run.
"""
