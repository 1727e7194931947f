"""Where records come from: labelled images in memory or on disk, their public facts, and deterministic splits."""

from tfdpgen.data.dataset import DataError, Dataset, DataSpec, LabeledDataset
from tfdpgen.data.declared import Declared
from tfdpgen.data.records import RandomAccess, RecordDataset
from tfdpgen.data.sources import load_splits, partition
from tfdpgen.data.splits import Splits

__all__ = [
    "DataError",
    "DataSpec",
    "Dataset",
    "Declared",
    "LabeledDataset",
    "RandomAccess",
    "RecordDataset",
    "Splits",
    "load_splits",
    "partition",
]
