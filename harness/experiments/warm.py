"""Imported by the server that workers are forked from: what every trial would find out anew is known there, and copied with it.

That is every installed method (to import them takes a second), the commit, the versions of packages and the libraries with threads.
"""

import gc

from threadpoolctl import threadpool_limits

from harness.experiments.environment import environment
from harness.training.contract import methods

list(methods)
environment("cpu")
threadpool_limits(limits=1)
gc.collect()
gc.freeze()  # a collection in a worker writes to every object it looks at, and so copies the pages of all that is shared
