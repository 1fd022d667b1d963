"""What stages share.

Its first import sets what OpenMP reads when torch loads it: import it before torch.
"""
import os

if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys():
    # A thread waits for the others this many turns (some 0.1 ms) before it sleeps. By default it
    # spins for tens of milliseconds, and where others compute too, threads then spin for one that
    # has no core.
    os.environ['GOMP_SPINCOUNT'] = '1000'
