"""How useful generated data are: plain functions of data sets."""

from tfdpgen.evaluation.utility import UtilityMatrix, accuracy, train_classifier, utility_matrix

__all__ = ["UtilityMatrix", "accuracy", "train_classifier", "utility_matrix"]
