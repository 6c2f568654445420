"""Checks of a data set before it is trusted: each has a name, a severity, and says what to do.

| check | error | warning | notice |
|---|---|---|---|
| ``lengths`` | a clip without frames or beyond its array | | |
| ``shared-ids`` | an id that occurs twice | | |
| ``label-range`` | a label that the task does not allow | | |
| ``non-finite`` | NaN or infinity among the values | 1 % or more were set to 0 at import | fewer were |
| ``constant-features`` | a modality that never changes | 1 % or more of its features never do | fewer |
| ``shared-groups`` | | a video or actor in more than one part | |
| ``split-sizes`` | | not the official sizes; no clips in a split | no clips in a split where none is official |
| ``missing-class`` | | a part without clips of a class, or of a sign | |
| ``label-histogram`` | | labels distributed otherwise than published | |
| ``empty-clips`` | | 1 % or more of the clips all zeros | fewer |
| ``front-padding`` | | a tenth of the clips begins with frames of zeros | |
| ``identical-rows`` | | a content that many clips share in one modality | |
| ``duplicate-clips`` | | the same clip in two splits, two groups, or with two labels | twice in one group |
| ``repeated-frames`` | | | a vector per clip written as many equal frames |
| ``too-good-to-be-true`` | | a linear probe beats the best published score; reads test labels, see its module | |

``examine`` runs all of them (at import, and for ``harness data check``), ``examine_folds`` the cheap ones on the parts of
the folds that are about to be trained. An error means that numbers would be wrong; a warning, that they may be.

To add one: a generator of ``Found`` with the decorator ``@check(name, cheap=...)`` in a module of this package, imported here.
"""

from harness.data.checks import copies, labels, probe, structure, values
from harness.data.checks.registry import SEVERITIES, Check, Found, Severity, Subject, checks, examine, examine_folds, examined

FAMILIES = (structure, labels, values, copies, probe)

__all__ = ["FAMILIES", "SEVERITIES", "Check", "Found", "Severity", "Subject", "checks", "examine", "examine_folds", "examined"]
