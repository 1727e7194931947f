"""Package metadata; the tools are configured in pyproject.toml, and requirements.lock pins what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import find_packages, setup

if sys.version_info[:2] != (3, 11):  # said here, since a resolver would say it in the words of some dependency
    sys.exit(
        "tfdpgen needs Python 3.11, because tensorflow-privacy supports no version from 3.12 on; "
        f"this is Python {sys.version.split()[0]}. Install Python 3.11 and use its pip."
    )

KUBEFLOW = ["kfp==2.13.0"]  # the newest that runs beside protobuf 4, which tensorflow 2.15 needs
TEST = ["pytest>=9", "pytest-xdist>=3", "hypothesis>=6"]
DEV = ["import-linter>=2", "pre-commit>=4", "pyright[nodejs]", "ruff", "uv"]

setup(
    name="tfdpgen",
    version="0.1.0",
    description="Differentially private synthetic images, with a served generator and an honest report.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",  # the upper bound is tensorflow-privacy's
    packages=find_packages(include=["tfdpgen*", "components*", "pipelines*"]),
    package_data={"tfdpgen": ["py.typed", "templates/*"]},
    install_requires=[
        "absl-py",
        "apache-beam>=2.77,<2.78",
        "array_record",
        "dp-accounting",
        "etils[eapp,enp,epath]",
        "importlib_resources",  # tensorflow-datasets imports it without declaring it
        "jinja2",
        "keras>=2.15,<2.16",
        "numpy",
        "pillow",
        "scikit-learn",
        "scipy",
        "simple_parsing",
        "tensorflow>=2.15.1,<2.16",  # the newest that tensorflow-privacy imports with
        "tensorflow-datasets>=4.9.8",
        "tensorflow-metadata==1.16.1",  # later ones need protobuf 5
        "tensorflow-privacy==0.9.0",
        "threadpoolctl",
    ],
    extras_require={
        "kubeflow": KUBEFLOW,
        "test": TEST,
        "dev": DEV + TEST + KUBEFLOW,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
