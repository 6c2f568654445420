"""Feature extraction: from the media and transcripts of a stored data set to a new variant of it with features.

Every module of this package is imported here and registers its extractors; the libraries that they need are imported when used.
"""

from harness.data.features.base import Clip, Collective, Extractor, Gathered, extractors
from harness.registry import import_tree

extractors.broken |= import_tree(__name__)

__all__ = ["Clip", "Collective", "Extractor", "Gathered", "extractors"]
