"""Imported by the server that workers are forked from: what every trial would find out anew is known there, and copied with it.

That is every installed method (to import them takes a second), the commit and the versions of packages.
"""

from harness.experiments.environment import environment
from harness.training.contract import methods

list(methods)
environment("cpu")
