"""Sweeps: many cells, packed into jobs, checked, submitted, watched and reported.

``grid`` and ``check`` turn overrides into cells that can work, ``packs`` into jobs. A ``scheduler`` runs the jobs:
``local`` one after another, ``slurm`` on a cluster (``slurm_script`` says what a job asks for, ``slurm_queue`` talks to
SLURM, ``lanes`` keep to ``max_parallel``). ``worker`` is what runs inside a job, ``pack_job`` what starts it under
SLURM, ``requeue`` what it does when it is told to go. ``launch`` is the flow from the first to the last, ``rows`` what
is seen of it at any moment, ``stop`` and ``interrupts`` its ends on purpose, ``close`` its record.
"""
