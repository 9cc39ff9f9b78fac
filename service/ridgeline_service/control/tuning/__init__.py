"""Hyperparameter tuning: a tuning job searches by starting training jobs, its trials.

ranges     what is searched: dimensions, and values as clients write them
spec       a CreateHyperParameterTuningJob request as small types; the impossible refused
search     the next point, by Optuna, from what the trials found so far
stopping   which trials are not worth going on with
decisions  what is due: trials to start, to stop, the end
life       one step of one tuning job
jobs       the verbs
"""
