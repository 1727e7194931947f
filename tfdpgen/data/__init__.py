"""Where records come from: labelled images, their public facts, and deterministic splits."""

from tfdpgen.data.dataset import DataError, DataSpec, LabeledDataset, Splits
from tfdpgen.data.sources import load_splits, partition

__all__ = ["DataError", "DataSpec", "LabeledDataset", "Splits", "load_splits", "partition"]
