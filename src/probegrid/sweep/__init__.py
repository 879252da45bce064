"""Sweeps: many cells, packed into jobs, checked, submitted, watched and reported.

Knows cells by their configs and keys, schedulers by three verbs (submit, states, cancel).

``compose`` and ``check`` turn overrides into cells that can work, ``packing`` into jobs, ``local`` and ``slurm``
run the jobs, ``worker`` is what runs inside one, ``launch`` is the flow from the first to the last, and ``folder``
is everything a sweep keeps on disk.
"""
