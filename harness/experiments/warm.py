"""Imported by the server that workers are forked from: what every trial would find out anew is known there, and copied with it.

That is every installed method (to import them takes a second), the commit, the versions of packages and the libraries with threads.
"""

from threadpoolctl import threadpool_limits

from harness.experiments.environment import environment
from harness.training.contract import methods

list(methods)
environment("cpu")
threadpool_limits(limits=1)
