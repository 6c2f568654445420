"""Tests between systems of a table: one door to the modules that hold them.

``compare`` picks the test of two systems by design: a fixed split with seeds, the two-level bootstrap; a single run,
McNemar for accuracies of independent clips and the bootstrap over clusters otherwise; fewer than 12 clusters, swaps of
them; repeated k-fold and hold-out draws, the corrected t-test. ``diagram`` compares systems over several data sets.
"""

from harness.analysis.bayesian import PROBABLE, Posterior, correlated_bayes, default_rope, posterior, posterior_of
from harness.analysis.bootstrap import two_level_bootstrap, two_level_bootstraps
from harness.analysis.classical import corrected_t, holm, paired_t, wilcoxon
from harness.analysis.comparisons import Comparison
from harness.analysis.designs import DEFAULT_TESTS, compare, compare_seeds_only, default_test, fold_differences, run_values
from harness.analysis.effects import a12, dz, iqm, rank_biserial, t_interval
from harness.analysis.friedman import Diagram, Friedman, Scores, critical_difference, diagram, friedman, nemenyi, wilcoxon_holm
from harness.analysis.intervals import Interval, bca, bca_difference, bca_interval
from harness.analysis.pairs import UNTESTED, Design, Pair
from harness.analysis.permutation import FEW_CLUSTERS, cluster_sign_flip, mcnemar, sign_flip
from harness.analysis.power import Plan, plan_seeds, t_power
from harness.analysis.small import few_clusters
from harness.analysis.variance import Decomposition, Part, components, decompose

__all__ = [
    "DEFAULT_TESTS",
    "FEW_CLUSTERS",
    "PROBABLE",
    "UNTESTED",
    "Comparison",
    "Decomposition",
    "Design",
    "Diagram",
    "Friedman",
    "Interval",
    "Pair",
    "Part",
    "Plan",
    "Posterior",
    "Scores",
    "a12",
    "bca",
    "bca_difference",
    "bca_interval",
    "cluster_sign_flip",
    "compare",
    "compare_seeds_only",
    "components",
    "corrected_t",
    "correlated_bayes",
    "critical_difference",
    "decompose",
    "default_rope",
    "default_test",
    "diagram",
    "dz",
    "few_clusters",
    "fold_differences",
    "friedman",
    "holm",
    "iqm",
    "mcnemar",
    "nemenyi",
    "paired_t",
    "plan_seeds",
    "posterior",
    "posterior_of",
    "rank_biserial",
    "run_values",
    "sign_flip",
    "t_interval",
    "t_power",
    "two_level_bootstrap",
    "two_level_bootstraps",
    "wilcoxon",
    "wilcoxon_holm",
]
