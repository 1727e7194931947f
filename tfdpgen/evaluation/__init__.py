"""How useful generated data are, and how close to real ones: plain functions of data sets and of features."""

from tfdpgen.choices import CLASSIFIERS, check_classifiers, check_publishable, publishable_metrics
from tfdpgen.evaluation.classifiers import (
    CannotFitError,
    Classifier,
    NotFitted,
    fit_classifier,
    try_classifier,
)
from tfdpgen.evaluation.cnn import accuracy, train_classifier
from tfdpgen.evaluation.features import FeatureSpace, cnn_space, inception_space, scattering_space
from tfdpgen.evaluation.fidelity import (
    TooFewExamplesError,
    class_imbalance,
    density_coverage,
    diversity,
    frechet_distance,
    measure_fidelity,
    precision_recall,
    vendi_score,
)
from tfdpgen.evaluation.intervals import accuracy_interval, difference_interval
from tfdpgen.evaluation.published import PublishedAccuracies, publish_accuracies
from tfdpgen.evaluation.utility import (
    UtilityMatrix,
    balanced_accuracy,
    caution_of_use,
    cautions_about,
    compare_classifiers,
    over_seeds,
    utility_matrix,
)

__all__ = [
    "CLASSIFIERS",
    "CannotFitError",
    "Classifier",
    "FeatureSpace",
    "NotFitted",
    "PublishedAccuracies",
    "TooFewExamplesError",
    "UtilityMatrix",
    "accuracy",
    "accuracy_interval",
    "balanced_accuracy",
    "caution_of_use",
    "cautions_about",
    "check_classifiers",
    "check_publishable",
    "class_imbalance",
    "cnn_space",
    "compare_classifiers",
    "density_coverage",
    "difference_interval",
    "diversity",
    "fit_classifier",
    "frechet_distance",
    "inception_space",
    "measure_fidelity",
    "over_seeds",
    "precision_recall",
    "publish_accuracies",
    "publishable_metrics",
    "scattering_space",
    "train_classifier",
    "try_classifier",
    "utility_matrix",
    "vendi_score",
]
