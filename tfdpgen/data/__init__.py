"""Where records come from: labelled images in memory or on disk, their public facts, and deterministic splits."""

from tfdpgen.data.dataset import DataError, Dataset, DataSpec, LabeledDataset
from tfdpgen.data.declared import Declared
from tfdpgen.data.public_images import PublicImages, load_public_images
from tfdpgen.data.records import RandomAccess, RecordDataset
from tfdpgen.data.sources import load_splits, partition
from tfdpgen.data.splits import Splits

__all__ = [
    "DataError",
    "DataSpec",
    "Dataset",
    "Declared",
    "LabeledDataset",
    "PublicImages",
    "RandomAccess",
    "RecordDataset",
    "Splits",
    "load_public_images",
    "load_splits",
    "partition",
]
