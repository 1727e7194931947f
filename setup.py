"""Package metadata; the tools are configured in pyproject.toml, and requirements.lock pins what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import find_packages, setup

if not (3, 11) <= sys.version_info[:2] <= (3, 13):  # a resolver would say it in the words of some dependency
    sys.exit(
        "tfdpgen needs Python 3.11, 3.12 or 3.13, which TensorFlow 2.21 supports; "
        f"this is Python {sys.version.split()[0]}. Install one of these and use its pip."
    )

KUBEFLOW = ["kfp>=2.17"]
DICOM = ["pydicom>=3"]
# Not in requirements.lock: what Flower pins would hold others back for everybody. `make federated` has its own place.
FEDERATED = ["flwr==1.42.*", "ray==2.55.1; sys_platform != 'win32'"]  # ray as Flower's extra `simulation` pins it
MLFLOW = ["mlflow-skinny>=3"]
OPENLINEAGE = ["openlineage-python>=1.40"]
POSTGRES = ["psycopg[binary]>=3.2"]
TEST = ["pytest>=9", "pytest-xdist>=3", "hypothesis>=6", *DICOM, *POSTGRES]
DEV = ["import-linter>=2", "pre-commit>=4", "pyright[nodejs]", "ruff", "uv"]

setup(
    name="tfdpgen",
    version="0.1.0",
    description="Differentially private synthetic images, with a served generator and an honest report.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["tfdpgen*", "components*", "pipelines*"]),
    entry_points={"console_scripts": ["tfdpgen=pipelines.command:entry_point"]},
    package_data={"tfdpgen": ["py.typed", "templates/*"], "pipelines": ["flower_app/*.toml"]},
    # tensorflow-privacy is not among these: its own pins are of an older TensorFlow, so that pip would find no versions
    # that fit. `make setup` installs it without them; after `pip install .`, the first run says how.
    install_requires=[
        "absl-py",
        "alembic>=1.16",
        "apache-beam>=2.77",
        "array_record",
        "dm-tree",  # of tensorflow-privacy
        "dp-accounting>=0.6",  # replace-one for Poisson samples
        "etils[eapp,enp,epath]",
        "h5py",
        "importlib_resources",  # tensorflow-datasets imports it without declaring it
        "jinja2",
        "numpy>=2",
        "packaging",  # of tensorflow-privacy
        "pillow",
        "platformdirs",
        "psutil",
        "pyarrow",
        "scikit-learn",
        "scipy",
        "simple_parsing",
        "sqlalchemy>=2.0.40,<2.2",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10",
        "tf-keras>=2.21,<2.22",
        "threadpoolctl",
        "tqdm",
    ],
    extras_require={
        "dicom": DICOM,
        "federated": FEDERATED,
        "kubeflow": KUBEFLOW,
        "mlflow": MLFLOW,
        "openlineage": OPENLINEAGE,
        "postgres": POSTGRES,
        "test": TEST,
        "dev": DEV + TEST + KUBEFLOW,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
