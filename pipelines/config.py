"""What a run of the synthesis pipeline takes: every field is a flag of the local run and a parameter on Kubeflow.

    SynthesisConfig(dataset="mnist", epsilon=1.0)       # checked here, before anything runs

The text below each field is its help on the command line.
"""

from __future__ import annotations

import dataclasses
import math
import shlex

PAID = "train"  # the step that spends the budget
STARTS = ("generate", "attack", "evaluate", "audit", "publish")  # the steps after it
LOCAL_FIELDS = ("start_at", "nocache")  # which tell the local run what to do, and no step
PATH_FIELDS = (
    "dataset",
    "public_dataset",
    "data_dir",
    "output_dir",
    "ledger",
    "backup",
    "cache",
    "attack_shadow_folder",
    "inception_weights",
)


def default_ledger() -> str:
    """The ledger of this user account: one for all runs, in the platform's folder of data."""
    import platformdirs

    return str(platformdirs.user_data_path("tfdpgen", appauthor=False) / "ledger.sqlite")


def default_index() -> str:
    """The index of artifacts of this user account, beside its ledger."""
    import platformdirs

    return str(platformdirs.user_data_path("tfdpgen", appauthor=False) / "lineage.sqlite")


_LARGEST = 2**31 - 1  # every consumer can take it: NumPy's and TensorFlow's seeds, and counts of examples


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """Settings of a run.

    Raises:
      ValueError: if a field lies outside its range; the message names it, what was expected and what came.
    """

    dataset: str = "digits"
    """Private examples: digits (embedded), a folder of images with one sub-folder a class, a table (.csv, .parquet)
    with the columns file and label, an .npz, or the name of a TFDS image-classification data set such as mnist.
    docs/data.md."""

    data_dir: str = ""
    """Where TFDS keeps its data sets; empty: TFDS's default."""

    image_shape: str = ""
    """height,width,channels that the model sees, as in 28,28,1; empty: as the source declares. Image files need it."""

    num_classes: int = 0
    """Number of classes; 0: as the source or classes declares."""

    value_range: str = ""
    """lowest,highest value that a pixel can have, as in 0,255; empty: as the source declares. 16-bit and
    floating-point images need it, and DICOM, whose window it is."""

    classes: str = ""
    """Names of the classes in the order of their labels, as in cat,dog; empty: as the source declares. Published."""

    resize: str = "error"
    """What happens to images of other sides than image_shape: error (they are refused), crop, pad or stretch."""

    background: str = "255"
    """Grey level, or red,green,blue, each in 0..255, that shows behind transparent pixels and padded images."""

    on_disk: bool = False
    """Prepare a TFDS data set as ArrayRecord files and never have all of its examples in memory."""

    user_column: str = "user"
    """Column of a table that says whose an example is: fedavg_gan makes its promise to users, and splits keep a user's
    examples together."""

    users: str = ""
    """Make up users for a source that knows none, for experiments: iid:20, of 20 random examples each, or by_class:20,
    of one class each. Empty: the users of the source, if it knows any."""

    cache: str = ""
    """Folder that keeps decoded image files, so that a second run reads them quickly. Internal. Empty: internal/cache
    in output_dir, or none on Kubeflow."""

    method: str = "gaussian_mixture"
    """The method: gaussian_mixture (noisy statistics, nothing is trained), dp_diffusion (crisp images,
    slowly), c_vae, dp_gan, pate_gan, gs_wgan, fedavg_gan (promises privacy to users), or latent_gaussian (for
    handwriting and drawings)."""

    epsilon: float = 3.0
    """Privacy budget: the release is (epsilon, delta)-differentially private. Smaller is more private."""

    delta: float = 1e-5
    """Privacy budget: has to be smaller than 1 / number of training examples."""

    public_dataset: str = ""
    """Images that anybody may see, from which latent_gaussian and dp_gan learn for nothing before they ask for anything
    private: a folder, .npz or TFDS name, as in dataset, or a folder of images without sub-folders; or strokes, fonts
    (of this machine, or fonts:FOLDER) or dead_leaves, which are made without data. Labels are not used. Empty: strokes
    for latent_gaussian, none for dp_gan. docs/data.md."""

    labeller_share: float = 0.0
    """Share of the budget, in [0, 1), that trains a private labeller: then as many augmented examples, which it has
    labelled, come beside the synthetic ones. 0: none."""

    label_distribution: str = "balanced"
    """Shares of the classes in the synthetic examples: balanced, equal ones; or private, those of the private examples,
    which a fiftieth of the budget buys as noisy counts."""

    augment: bool = False
    """Add one augmented example, transformed at random, for each synthetic one, without a labeller too."""

    num_synthetic: int = 6000
    """Number of synthetic examples to generate."""

    dry_run: bool = False
    """Read and check the data, say what the run would cost and whether it has a chance, and stop: nothing is reserved.
    On Kubeflow the step train then ends the run with that message."""

    output_dir: str = "output"
    """Folder that receives public/, with all that may be published, and summary.json and report.html, which may not.
    Its sub-folder internal/, which the local run keeps, holds private examples."""

    ledger: str = ""
    """Where the ledger is, which keeps what was spent on whose examples: a file, or a database address such as
    postgresql://host/database. Empty: the one of this user account, or none on Kubeflow. docs/ledger.md."""

    total_epsilon: float = 10.0
    """What every example may cost in all runs together, at delta, where the ledger does not know the examples yet. A
    data set that was opened before keeps its own total."""

    backup: str = ""
    """Folder that keeps the training's progress: the same run, started again after it was killed, goes on from there.
    Empty: internal/backup in output_dir, or none on Kubeflow and with insecure_reproducible."""

    seed: int = 0
    """Seed of initial weights and of public draws: fakes, k-means, synthetic examples, attacks, classifiers. It never
    reaches the privacy noise, the Poisson samples or what is drawn for a private example (latents, noise levels, views,
    dropout masks): those come from the operating system."""

    insecure_reproducible: bool = False
    """Seed the noise, the Poisson samples and the draws for private examples too. That protects nobody: every output is
    marked as not for release."""

    attack_repetitions: int = 5
    """How often each attack is repeated; its intervals narrow with it."""

    attack_candidates: int = 1000
    """How many examples of each kind an attack is asked about; as many as there are if there are fewer."""

    attack_shadow_models: int = 0
    """Trainings of the attacker's own, for the attack LiRA: even and at least 4; each takes as long as the training. 0:
    none."""

    attack_shadow_processes: int = 2
    """How many of them run at a time."""

    attack_shadow_folder: str = ""
    """Folder that keeps what they found, so that an attack that was stopped goes on. Internal. Empty: none."""

    audit_canaries: int = 0
    """Canaries of an audit, which trains once more and says what epsilon it can refute; internal. 0: no audit."""

    audit_adversary: str = "black_box"
    """What the audit sees: black_box, samples of the method trained on private examples and canaries; white_box, each
    update of the optimizer at work on canaries alone."""

    classifiers: str = "all"
    """Classifiers that utility is measured by beside the CNN, with commas between, of logistic_regression, mlp,
    random_forest and gradient_boosting. all: all of them; empty: the CNN alone."""

    classifier_seeds: int = 3
    """How often the CNN is trained on private and on synthetic examples, each time with another seed: accuracies come
    with their range."""

    inception_weights: str = ""
    """File with Keras's InceptionV3 weights (without top) for the Frechet inception distance, or keras for those that
    Keras has downloaded before. Empty: fidelity is measured in the other feature spaces alone."""

    publish_metrics_epsilon: float = 0.0
    """Publish accuracies, with noise: the epsilon, at delta, that each test example pays for all of them together. 0:
    every metric stays internal."""

    publish_metrics: str = "p2"
    """Which accuracies to publish then, with commas between, as in p2,p2_mlp: of classifiers of synthetic examples
    only."""

    start_at: str = ""
    """Run generate, attack, evaluate, audit or publish and what comes after it again, from what an earlier run in
    output_dir has made and paid for: nothing is trained, and the training examples pay nothing more. Empty: run what
    would come out otherwise than it is there."""

    nocache: bool = False
    """Run every step again, also those whose output is there as it would come out now: trains anew, and pays again."""

    beam_args: str = ""
    """Beam runner and options in one string. The local run also takes them after a bare --, as in
    -- --runner=FlinkRunner; without any it stays in this process."""

    def __post_init__(self) -> None:
        from components.audit import ADVERSARIES
        from components.evaluate import split
        from components.ingest import declared
        from tfdpgen.choices import (
            CLASSIFIERS,
            DIGITS_SHAPE,
            check_budget,
            check_classifiers,
            check_delta,
            check_is_another,
            check_knows_users,
            check_label_distribution,
            check_labeller_share,
            check_method,
            check_public_images,
            check_publishable,
            check_shadows,
            public_source,
            publishable_metrics,
        )
        from tfdpgen.data.synthetic_users import parse_users

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is int and not -_LARGEST <= value <= _LARGEST:
                raise ValueError(f"`{field.name}` should be at most {_LARGEST}; got {value}.")
        if self.users:
            parse_users(self.users)
        if self.method == "fedavg_gan" and (self.labeller_share or self.label_distribution == "private"):
            raise ValueError(
                "`labeller_share` and `label_distribution` should be left out with `method` fedavg_gan: it makes its "
                "promise to users, and these are accounted for single examples."
            )
        facts = declared(
            self.image_shape, self.num_classes, self.value_range, self.classes, self.resize, self.background
        )
        shape = facts.image_shape or (DIGITS_SHAPE if self.dataset == "digits" else ())
        check_budget(self.epsilon, self.delta)
        if not (math.isfinite(self.total_epsilon) and self.total_epsilon > 0):
            raise ValueError(f"`total_epsilon` should be a finite number greater than 0; got {self.total_epsilon!r}.")
        check_labeller_share(self.labeller_share)
        check_label_distribution(self.label_distribution)
        for name, least, why in (
            ("num_synthetic", 12, ": a sixth of them tests classifiers, and the rest trains them"),
            ("seed", 0, ""),
            ("attack_repetitions", 2, ": one has no interval"),
            ("attack_candidates", 1, ""),
            ("classifier_seeds", 1, ""),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` should be at least {least}{why}; got {getattr(self, name)}.")
        if self.audit_adversary not in ADVERSARIES:
            raise ValueError(
                f"`audit_adversary` should be one of {', '.join(ADVERSARIES)}; got {self.audit_adversary!r}."
            )
        if self.audit_canaries < 0 or self.audit_canaries == 1:
            raise ValueError(f"`audit_canaries` should be 0 or at least 2; got {self.audit_canaries}.")
        if self.audit_canaries:
            check_delta(self.delta, self.audit_canaries)
        for name in ("dataset", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` should not be empty.")
        if self.attack_shadow_models:
            names = ("attack_shadow_models", "attack_shadow_processes")
            check_shadows(self.attack_shadow_models, self.attack_shadow_processes, names)
        elif self.attack_shadow_folder:
            raise ValueError(
                "`attack_shadow_folder` should be empty without `attack_shadow_models`; "
                f"got {self.attack_shadow_folder!r}."
            )
        check_method(self.method)
        check_knows_users(self.method, self.dataset, self.users)
        public = public_source(self.method, self.public_dataset)
        check_is_another(public, self.dataset)
        if shape:
            height, width, channels = shape
            check_public_images(public, (height, width, channels))
        if self.classifiers != "all":
            check_classifiers(split(self.classifiers))
        if self.publish_metrics_epsilon:
            check_budget(self.publish_metrics_epsilon, self.delta)
            judges = CLASSIFIERS if self.classifiers == "all" else split(self.classifiers)
            has_augmented = self.augment or self.labeller_share > 0
            check_publishable(split(self.publish_metrics), publishable_metrics(judges, has_augmented))
            if self.insecure_reproducible:
                raise ValueError(
                    "`publish_metrics_epsilon` should be 0 with `insecure_reproducible`, whose examples may not leave; "
                    f"got {self.publish_metrics_epsilon}."
                )
        if self.start_at and self.start_at not in STARTS:
            raise ValueError(f"`start_at` should be empty or one of {', '.join(STARTS)}; got {self.start_at!r}.")
        if self.start_at and self.dry_run:
            raise ValueError(f"`start_at` should be empty with `dry_run`, which ends before; got {self.start_at!r}.")
        if self.start_at and self.nocache:
            raise ValueError(f"`start_at` should be empty with `nocache`, which runs all steps; got {self.start_at!r}.")
        try:
            arguments = shlex.split(self.beam_args)
        except ValueError as error:
            raise ValueError(f"`beam_args` should be flags as in a shell; got {self.beam_args!r} ({error}).") from None
        if arguments:
            from pipelines.beam_args import check_beam_args

            check_beam_args(arguments)
