"""The mutants: bugs that real libraries and papers had, each as an exact replacement, and what has to catch them.

A mutant whose text is no longer found exactly once is an error, here and in the default test suite: whoever changes the
code moves the mutant along. `had_by` names what is public about the bug; "class of bug" says that it is easy to make
and that no case of it is known here.
"""

from __future__ import annotations

from tests.mutations.mutant import Edit, Mutant

_OPTIMIZER = "tfdpgen/privacy/optimizer.py"
_PLAN = "tfdpgen/privacy/mechanisms/dp_sgd.py"
_SAMPLING = "tfdpgen/privacy/sampling.py"
_NOISE = "tfdpgen/privacy/noise.py"
_STATISTICS = "tfdpgen/privacy/statistics.py"
_BOOKKEEPING = "tfdpgen/privacy/clipping/bookkeeping.py"
_FACTORS = "tfdpgen/privacy/clipping/factors.py"
_TRAIN = "tfdpgen/methods/base.py"
_TRAINER = "tfdpgen/privacy/trainer.py"
_C_VAE = "tfdpgen/methods/c_vae.py"

_TEST_OPTIMIZER = "tests/privacy/test_optimizer.py"
_TEST_PLAN = "tests/privacy/test_plan.py"
_TEST_SAMPLING = "tests/privacy/test_sampling.py"
_TEST_NOISE = "tests/privacy/test_noise.py"
_TEST_CLIPPING = "tests/privacy/test_clipping.py"
_TEST_RULES = "tests/privacy/test_layer_rules.py"
_TEST_MOMENTS = "tests/privacy/test_class_moments.py"
_TEST_CENTRES = "tests/privacy/test_class_centres.py"
_TEST_CHUNKS = "tests/methods/test_chunks.py"
_TEST_ACCOUNT = "tests/methods/test_account.py"
_TEST_ONE_WAY = "tests/methods/test_one_way.py"
_TEST_LABELLER = "tests/release/test_labeller.py"
_AUDIT = "tests/attacks/audit/test_white_box.py::test_at_epsilon_4_the_bound_comes_near_and_stays_below"
_CALLED_TWICE = "test_a_layer_that_is_called_twice_counts_with_the_sum_of_its_calls[layer0-shape0]"
_CONFORMANCE = "tests/conformance/test_methods.py"

_DRAW = "noise = self._noise.draw([value.shape for value in sums], self._stddev)"
_BOOKKEEPING_RETURN = (
    "    return ClippedSum([sums.get(id(variable), tf.zeros_like(variable)) for variable in variables], norms)"
)
_STDDEV = "stddev = l2_norm_clip * noise_multiplier if noise_multiplier else 0.0"

MUTANTS: tuple[Mutant, ...] = (
    # What runs is what is accounted.
    Mutant(
        name="half_the_noise",
        rule=1,
        bug="The noise has half of its standard deviation.",
        had_by='class of bug; one of the two that "Finding private bugs" (2023) tests DP-SGD for',
        edits=(Edit(_OPTIMIZER, _DRAW, _DRAW.replace("_stddev", "_stddev / 2")),),
        caught_by=(f"{_TEST_OPTIMIZER}::test_the_noise_has_the_declared_scale", _AUDIT),
    ),
    Mutant(
        name="noise_by_the_square_of_the_clip",
        rule=1,
        bug="The noise is scaled by the clip's square: too little wherever the clip is below 1.",
        had_by="SPRINT_gan (#5)",
        edits=(Edit(_OPTIMIZER, _STDDEV, _STDDEV.replace("l2_norm_clip", "l2_norm_clip**2")),),
        caught_by=(f"{_TEST_PLAN}::test_batches_and_optimizer_are_the_plans",),
    ),
    Mutant(
        name="noise_divided_by_the_batch_twice",
        rule=1,
        bug="The noise is scaled for a mean and added to a sum, which is then divided: a batch size too small.",
        had_by="Backpropagation Clipping, by the audit of Tramèr et al. 2022",
        edits=(
            Edit(
                _OPTIMIZER,
                _STDDEV,
                "stddev = l2_norm_clip * noise_multiplier / (expected_batch_size or 1) if noise_multiplier else 0.0",
            ),
        ),
        caught_by=(f"{_TEST_OPTIMIZER}::test_the_noise_has_the_declared_scale",),
    ),
    Mutant(
        name="noise_on_one_variable_only",
        rule=1,
        bug="The first variable gets noise; biases and later layers get none.",
        had_by="class of bug",
        edits=(
            Edit(
                _OPTIMIZER,
                "        return tf.nest.pack_sequence_as(sample_state, noised), global_state, None",
                "        noised[1:] = sums[1:]\n"
                "        return tf.nest.pack_sequence_as(sample_state, noised), global_state, None",
            ),
        ),
        caught_by=(f"{_TEST_OPTIMIZER}::test_noise_is_fresh_in_every_step_and_no_global_seed_reaches_it",),
    ),
    Mutant(
        name="noise_shared_out_over_chunks",
        rule=1,
        bug="Each chunk adds a sixteenth of the variance, however many chunks a draw has: too little in a small draw.",
        had_by="class of bug of gradient accumulation and of data-parallel training",
        edits=(
            Edit(
                _OPTIMIZER,
                "        return result.sums\n",
                "        query: Any = self._dp_sum_query\n"
                "        noise = query._noise.draw([value.shape for value in result.sums], query._stddev / 4)\n"
                "        return [value + part for value, part in zip(result.sums, noise, strict=True)]\n",
            ),
            Edit(_OPTIMIZER, "noised, _, _ = query.get_noised_result(list(sums), None)", "noised = list(sums)"),
        ),
        caught_by=(f"{_TEST_CHUNKS}::test_noise_is_added_once_for_all_chunks[memory-1]",),
    ),
    Mutant(
        name="noise_again_for_every_chunk",
        rule=1,
        bug="Each chunk adds all of the noise, which is accounted once: this one costs utility and no privacy.",
        had_by="class of bug; the stock optimizers of tensorflow-privacy do so at each accumulation step, by intent",
        edits=(
            Edit(
                _OPTIMIZER,
                "        return result.sums\n",
                "        query: Any = self._dp_sum_query\n"
                "        noise = query._noise.draw([value.shape for value in result.sums], query._stddev)\n"
                "        return [value + part for value, part in zip(result.sums, noise, strict=True)]\n",
            ),
        ),
        caught_by=(f"{_TEST_CHUNKS}::test_noise_is_added_once_for_all_chunks[memory-16]",),
    ),
    Mutant(
        name="no_noise_after_an_error",
        rule=1,
        bug="Where noise cannot be drawn, an `except` goes on without.",
        had_by="class of bug",
        edits=(
            Edit(
                _OPTIMIZER,
                f"        {_DRAW}\n",
                f"        try:\n            {_DRAW}\n        except Exception:\n"
                "            noise = [tf.zeros_like(value) for value in sums]\n",
            ),
        ),
        caught_by=("tests/privacy/test_failing_noise.py::test_a_step_without_noise_is_not_taken",),
    ),
    Mutant(
        name="half_the_probability_is_accounted",
        rule=1,
        bug="The event holds half of the probability that rows are drawn with.",
        had_by="class of bug",
        edits=(
            Edit(
                _PLAN,
                "poisson_gaussian_event(self.sampling_probability, self",
                "poisson_gaussian_event(self.sampling_probability / 2, self",
            ),
        ),
        caught_by=(f"{_TEST_PLAN}::test_epsilon_equals_dp_accountings[1.7-pld-PLDAccountant]",),
    ),
    Mutant(
        name="twice_the_probability_is_drawn",
        rule=1,
        bug="Rows are drawn with twice the probability that is accounted.",
        had_by="class of bug",
        edits=(
            Edit(
                _PLAN,
                "self.num_examples, self.sampling_probability, self.steps",
                "self.num_examples, min(1.0, 2 * self.sampling_probability), self.steps",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_inclusion_is_independent_with_the_plans_probability",),
    ),
    Mutant(
        name="one_step_more_runs",
        rule=1,
        bug="One step more runs than is accounted.",
        had_by="smartnoise-sdk, GANs before #424",
        edits=(Edit(_PLAN, "self.steps - first_step, self", "self.steps - first_step + 1, self"),),
        caught_by=(f"{_TEST_PLAN}::test_batches_and_optimizer_are_the_plans",),
    ),
    Mutant(
        name="one_step_less_is_accounted",
        rule=1,
        bug="The event holds one step less than runs.",
        had_by="class of bug",
        edits=(
            Edit(
                "tfdpgen/privacy/accounting/events.py",
                "dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian), steps)",
                "dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian), max(1, steps - 1))",
            ),
        ),
        caught_by=(f"{_TEST_PLAN}::test_epsilon_equals_dp_accountings[1.7-pld-PLDAccountant]",),
    ),
    Mutant(
        name="delta_is_ignored",
        rule=1,
        bug="Epsilon is computed at 1e-5 whatever delta is stated.",
        had_by="class of bug",
        edits=(
            Edit(
                "tfdpgen/privacy/accounting/epsilon.py",
                "made.compose(ran).get_epsilon(delta)",
                "made.compose(ran).get_epsilon(1e-5)",
            ),
        ),
        caught_by=(
            "tests/privacy/test_golden_epsilons.py::test_pld_agrees_with_dp_accounting_and_with_opacus[60000-256-100-2.1-1e-08]",
        ),
    ),
    Mutant(
        name="any_delta_is_accepted",
        rule=1,
        bug="A delta of 1 / n or more is accepted, which a mechanism that publishes a row meets.",
        had_by="class of bug",
        edits=(Edit("tfdpgen/choices.py", "if delta >= 1 / num_examples:", "if delta >= 1:"),),
        caught_by=(f"{_TEST_PLAN}::test_a_delta_that_is_not_below_one_over_n_is_refused",),
    ),
    Mutant(
        name="replacing_is_accounted_as_removing",
        rule=1,
        bug="The epsilon under replace-one is that of a row against nothing.",
        had_by="class of bug; Lebeda et al. 2024 on wrong pairs of neighbours",
        edits=(
            Edit(
                "tfdpgen/privacy/accounting/epsilon.py",
                '"replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE',
                '"replace-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE',
            ),
        ),
        caught_by=("tests/privacy/test_replace_one.py::test_epsilon_of_one_step_is_the_worst_pairs[0.1-1.0-0.001]",),
    ),
    Mutant(
        name="labeller_is_not_accounted",
        rule=1,
        bug="A plan that runs beside the training, the labeller's, is left out of event, statement and ledger.",
        had_by="class of bug; wrong accounting is among what Ganev et al. 2024 found in six PATE-GANs",
        edits=(
            Edit(
                _TRAIN,
                "    mechanisms = [*alongside, *([plan] if plan is not None else [])]\n",
                "    mechanisms = [*alongside, *([plan] if plan is not None else [])]\n"
                "    mechanisms = [part for part in mechanisms if part is plan or not isinstance(part, DPSGD)]\n",
            ),
        ),
        caught_by=(f"{_TEST_ACCOUNT}::test_everything_that_runs_is_in_the_event_the_statement_and_the_ledger",),
    ),
    # Poisson sampling.
    Mutant(
        name="shuffled_batches",
        rule=2,
        bug="Batches are slices of a shuffled epoch, and are accounted as Poisson samples.",
        had_by='much DP-SGD code (Chua et al. 2024, "How private are DP-SGD implementations?"); Opacus #80',
        edits=(
            Edit(
                _SAMPLING,
                "    for _ in range(steps):\n        drawn = _draw(num_examples, sampling_probability, rng)\n",
                "    size = max(1, round(num_examples * sampling_probability))\n"
                "    for step in range(steps):\n"
                "        start = step * size % (num_examples - num_examples % size)\n"
                "        if start == 0:\n"
                "            order = rng.permutation(num_examples)\n"
                "        drawn = np.sort(order[start : start + size])\n",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_inclusion_is_independent_with_the_plans_probability",),
    ),
    Mutant(
        name="batches_of_one_size",
        rule=2,
        bug="Each batch is a fresh sample of one fixed size, and is accounted as a Poisson sample.",
        had_by="class of bug; fixed sizes as such are in Opacus #80",
        edits=(
            Edit(
                _SAMPLING,
                "        drawn = _draw(num_examples, sampling_probability, rng)\n",
                "        size = round(num_examples * sampling_probability)\n"
                "        drawn = np.sort(rng.choice(num_examples, size, replace=False))\n",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_inclusion_is_independent_with_the_plans_probability",),
    ),
    Mutant(
        name="overfull_draws_are_cut",
        rule=2,
        bug="Rows beyond the physical batch are dropped: whether a row counts depends on how many others came.",
        had_by='class of bug; what truncation costs is in Chua et al. 2024, "Scalable DP-SGD"',
        edits=(
            Edit(
                _SAMPLING,
                "        chunks = max(1, math.ceil(len(drawn) / chunk))\n",
                "        drawn, chunks = drawn[:chunk], 1\n",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_over_full_draws_take_more_chunks_and_drop_nothing",),
    ),
    # One example, one clip.
    Mutant(
        name="clip_after_averaging",
        rule=3,
        bug="The mean gradient of the batch is clipped, and no example's.",
        had_by='class of bug; "Finding private bugs" (2023) tests DP-SGD for wrong gradients',
        edits=(
            Edit(
                _BOOKKEEPING,
                "    factor_of = {id(layer): factor for layer, factor in zip(layers, factors, strict=True)}\n",
                "    factor_of = {id(layer): tf.ones_like(norms) for layer in layers}\n",
            ),
            Edit(
                _BOOKKEEPING,
                _BOOKKEEPING_RETURN,
                "    count = tf.cast(tf.maximum(tf.shape(norms)[0], 1), norms.dtype)\n"
                "    means = [sums.get(id(variable), tf.zeros_like(variable)) / count for variable in variables]\n"
                "    clipped, _ = tf.clip_by_global_norm(means, l2_norm_clip)\n"
                "    return ClippedSum([value * count for value in clipped], norms)",
            ),
        ),
        caught_by=(f"{_TEST_CLIPPING}::test_each_example_is_clipped_on_its_own",),
    ),
    Mutant(
        name="no_clip",
        rule=3,
        bug="The bound that was asked for does not reach the clip.",
        had_by="Opacus, fast gradient clipping before #664",
        edits=(Edit(_FACTORS, "factors = [_at_most(l2_norm_clip, norms)]", "factors = [_at_most(math.inf, norms)]"),),
        caught_by=(f"{_TEST_CLIPPING}::test_each_example_is_clipped_on_its_own", _AUDIT),
    ),
    Mutant(
        name="whole_clip_for_every_layer",
        rule=3,
        bug="Each layer is clipped to all of the bound, and the noise is for one such layer.",
        had_by="class of bug; Opacus scales its noise up for it (#202)",
        edits=(Edit(_FACTORS, "bound = l2_norm_clip / math.sqrt(len(squared_norms))", "bound = l2_norm_clip"),),
        caught_by=(f"{_TEST_CLIPPING}::test_every_clip_mode_bounds_what_one_example_adds[per_layer-0.05]",),
    ),
    Mutant(
        name="microbatches_of_two",
        rule=3,
        bug="Two examples are averaged before the clip: one of them moves the sum by up to twice the clip.",
        had_by="tensorflow-privacy, `num_microbatches` (#81, #620; Ponomareva et al. 2023, section 5.6)",
        edits=(
            Edit(
                _BOOKKEEPING,
                "    views = losses.shape[1] if losses.shape.rank == 2 else 1\n",
                "    views = losses.shape[1] if losses.shape.rank == 2 else 2 - losses.shape[0] % 2\n",
            ),
            Edit(_BOOKKEEPING, "_views_of(layer, g, losses, views))", "views)"),
            Edit(
                _BOOKKEEPING,
                "    zeros = tf.zeros_like(losses if losses.shape.rank == 1 else losses[:, 0])\n",
                "    zeros = tf.zeros_like(losses[::views] if losses.shape.rank == 1 else losses[:, 0])\n",
            ),
        ),
        caught_by=(f"{_TEST_CLIPPING}::test_each_example_is_clipped_on_its_own",),
    ),
    Mutant(
        name="bias_left_out_of_the_norm",
        rule=3,
        bug="Norms are those of kernels alone, so that gradients by biases pass unclipped.",
        had_by="class of bug of hand-written layer rules",
        edits=(
            Edit(
                _BOOKKEEPING,
                "for part in gradients if part.layer is layer)",
                'for part in gradients if part.layer is layer and "bias" not in part.variable.name)',
            ),
        ),
        caught_by=(f"{_TEST_CLIPPING}::test_each_example_is_clipped_on_its_own",),
    ),
    Mutant(
        name="shared_layer_counted_as_two",
        rule=3,
        bug="The calls of a shared layer count with the sum of their squares, and not with the square of their sum.",
        had_by="Opacus with tied parameters (#413)",
        edits=(
            Edit(
                _BOOKKEEPING,
                "                gradients.append(_Gradient(layer, variable, whole.formed()))\n",
                "                whole = whole.formed()\n"
                "                whole.squared_norms = lambda parts=parts: sum(p.squared_norms() for p in parts)\n"
                "                gradients.append(_Gradient(layer, variable, whole))\n",
            ),
        ),
        caught_by=(f"{_TEST_RULES}::{_CALLED_TWICE}",),
    ),
    Mutant(
        name="first_call_of_a_shared_layer_left_out",
        rule=3,
        bug="Of a layer that is called twice the last call alone makes the norm.",
        had_by="class of bug of hooks that keep one activation",
        edits=(
            Edit(
                _BOOKKEEPING,
                "                gradients.append(_Gradient(layer, variable, whole.formed()))\n",
                "                whole = whole.formed()\n"
                "                if len(parts) > 1:\n"
                "                    whole.squared_norms = parts[-1].squared_norms\n"
                "                gradients.append(_Gradient(layer, variable, whole))\n",
            ),
        ),
        caught_by=(f"{_TEST_RULES}::{_CALLED_TWICE}",),
    ),
    Mutant(
        name="rows_of_a_table_counted_apart",
        rule=3,
        bug="A row of an embedding that comes up twice in one example counts as two.",
        had_by="class of bug of rules for embeddings",
        edits=(
            Edit(
                "tfdpgen/privacy/clipping/embedding.py",
                "        order = tf.argsort(self._indices, axis=1)\n",
                "        return tf.reduce_sum(tf.square(values), axis=[1, 2])\n"
                "        order = tf.argsort(self._indices, axis=1)\n",
            ),
        ),
        caught_by=(f"{_TEST_RULES}::test_embedding_adds_up_a_row_that_comes_up_twice[shape2]",),
    ),
    Mutant(
        name="rounding_makes_norms_smaller",
        rule=3,
        bug="A norm from Gram matrices that cancel comes out as anything, also as 0, and its row passes unclipped.",
        had_by="class of bug of ghost norms in 32 bits",
        edits=(Edit("tfdpgen/privacy/clipping/gram.py", "_ROUNDING = 1e-7", "_ROUNDING = 0.0"),),
        caught_by=(f"{_TEST_CLIPPING}::test_norms_from_grams_are_not_too_small_where_large_entries_cancel",),
    ),
    Mutant(
        name="gradients_that_are_not_finite_pass",
        rule=3,
        bug="A row whose gradient is not finite makes every weight not finite: everyone sees that it was there.",
        had_by="class of bug",
        edits=(
            Edit(
                _BOOKKEEPING,
                "    finite = tf.math.is_finite(norms)\n",
                "    finite = tf.ones_like(norms, tf.bool)\n",
            ),
        ),
        caught_by=(f"{_TEST_CLIPPING}::test_a_gradient_that_is_not_finite_contributes_zero",),
    ),
    Mutant(
        name="batch_normalisation_is_let_in",
        rule=3,
        bug="Networks may normalise over the batch: one row then moves the gradients of all others.",
        had_by="class of bug; what Opacus's `ModuleValidator` refuses",
        edits=(
            Edit(
                "tfdpgen/privacy/clipping/check.py",
                'if any("BatchNormalization" in base.__name__ for base in type(layer).__mro__):\n        return True',
                'if any("BatchNormalization" in base.__name__ for base in type(layer).__mro__):\n        return False',
            ),
        ),
        caught_by=(f"{_TEST_RULES}::test_layers_that_compute_across_examples_are_refused[False-batch_normalization]",),
    ),
    Mutant(
        name="padding_counts",
        rule=3,
        bug="Rows that pad a batch count: the row at position 0 comes up many times in every step.",
        had_by="class of bug of fixed physical shapes",
        edits=(
            Edit(
                _SAMPLING,
                "        weights = np.zeros(chunks * chunk, np.float32)\n",
                "        weights = np.ones(chunks * chunk, np.float32)\n",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_empty_draws_are_batches_of_padding",),
    ),
    Mutant(
        name="divided_by_the_drawn_rows",
        rule=3,
        bug="The noised sum is divided by how many rows were drawn, which is private.",
        had_by="tensorflow-privacy; Opacus divides by a figure that the number of rows decides (#571)",
        edits=(
            Edit(
                _OPTIMIZER,
                "        self.non_finite_examples.assign_add(",
                "        self._drawn = tf.math.count_nonzero(losses)\n        self.non_finite_examples.assign_add(",
            ),
            Edit(
                _OPTIMIZER,
                "scale: Any = self._expected_batch_size if divisor is None else divisor",
                "scale: Any = self._drawn if divisor is None else divisor",
            ),
        ),
        caught_by=(f"{_TEST_OPTIMIZER}::test_the_divisor_is_the_expected_batch_size_whatever_was_drawn",),
    ),
    Mutant(
        name="kl_averaged_over_the_batch",
        rule=3,
        bug="The KL of a VAE is a mean over the batch, added to each loss: every row is in everyone's gradient.",
        had_by="class of bug of losses that are added to a model (Keras's `add_loss`), which no tape sees by example",
        edits=(
            Edit(
                _C_VAE,
                "self.preset.kl_weight * divergences",
                "self.preset.kl_weight * tf.reduce_mean(divergences)",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_a_row_counts_for_one_clip_wherever_the_training_is[c_vae]",),
    ),
    Mutant(
        name="only_pythons_integers_are_axes",
        rule=3,
        bug="An axis that NumPy counts is no axis, so that a softmax over the examples passes.",
        had_by="class of bug of checks by type",
        edits=(
            Edit(
                "tfdpgen/privacy/clipping/check.py",
                "isinstance(each, numbers.Integral)]",
                "type(each) is int]",
            ),
        ),
        caught_by=(f"{_TEST_RULES}::test_examples_that_mix_by_a_setting_or_by_a_call_are_refused",),
    ),
    Mutant(
        name="models_of_ones_own_pass",
        rule=3,
        bug="A model with a `call` of its own is taken for its layers, while it subtracts the mean of the batch.",
        had_by="class of bug of validators that look at layers alone (Opacus's ModuleValidator)",
        edits=(
            Edit(
                "tfdpgen/privacy/clipping/check.py",
                "if isinstance(model, keras.Model) and type(model) not in _models():",
                "if False:",
            ),
        ),
        caught_by=(f"{_TEST_RULES}::test_what_no_list_of_layers_describes_is_refused",),
    ),
    Mutant(
        name="a_fake_for_every_drawn_row",
        rule=3,
        bug="There are as many fakes as rows were drawn, so that a row brings a fake's gradient along with its own.",
        had_by="class of bug of DP-GANs that pair real and fake rows",
        edits=(
            Edit(
                "tfdpgen/methods/dp_gan.py",
                "weight = plan.expected_batch_size / preset.fakes",
                "weight = tf.reduce_sum(weights) / preset.fakes",
            ),
        ),
        caught_by=(f"{_CONFORMANCE}::test_fakes_weigh_as_many_rows_as_the_plan_expects",),
    ),
    Mutant(
        name="latents_of_a_public_seed",
        rule=3,
        bug="A public seed and the place in the batch decide the latents that examples are encoded with: one more "
        "example gives all later ones other latents, and moves the sum by many clips.",
        had_by="class of bug of seeded generators in private steps",
        edits=(
            Edit(
                _C_VAE,
                "per_example = noise.examples()",
                "per_example = tf.random.Generator.from_seed(self.seed)",
            ),
        ),
        caught_by=(
            f"{_CONFORMANCE}::test_one_inserted_example_moves_what_is_noised_by_at_most_the_clip[front-c_vae]",
            f"{_CONFORMANCE}::test_latents_of_examples_follow_no_public_seed",
        ),
    ),
    Mutant(
        name="sum_divided_by_the_sample_size",
        rule=3,
        bug="A trainer's clipped sum is made a mean over the examples of the sample before the noise.",
        had_by="tensorflow-privacy without microbatches divides so, after the noise",
        edits=(
            Edit(
                _TRAINER,
                "            optimizer.apply_clipped_sum(sums, variables)\n",
                "            size = tf.maximum(tf.reduce_sum(weights), 1.0) / mechanism.expected_batch_size\n"
                "            optimizer.apply_clipped_sum([value / size for value in sums], variables)\n",
            ),
        ),
        caught_by=(
            f"{_TEST_LABELLER}::test_one_example_moves_what_is_noised_by_at_most_the_clip_and_padding_by_nothing",
        ),
    ),
    Mutant(
        name="features_centred_on_all_examples",
        rule=3,
        bug="A trainer's features are centred on the mean of the private ones: each example is in everyone's gradient.",
        had_by="class of bug of scalers that are fitted beforehand",
        edits=(
            Edit(
                _TRAINER,
                "    return features\n",
                "    return features - features.mean(axis=0)\n",
            ),
        ),
        caught_by=(
            f"{_TEST_LABELLER}::test_one_example_moves_what_is_noised_by_at_most_the_clip_and_padding_by_nothing",
        ),
    ),
    # Nothing that depends on the rows is unpaid.
    Mutant(
        name="features_centred_on_their_block",
        rule=4,
        bug="Features are centred on the mean of the rows that are read together: no bound holds for one row's part.",
        had_by="class of bug of scalers that are fitted beforehand",
        edits=(
            Edit(
                _C_VAE,
                "            if not by_component:\n",
                "            features = features - tf.reduce_mean(features, axis=0)\n"
                "            if not by_component:\n",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_what_statistics_are_computed_of_is_of_each_row_alone[c_vae-]",),
    ),
    Mutant(
        name="range_taken_from_the_rows",
        rule=4,
        bug="Values are scaled by the largest that occurs, which is one row's.",
        had_by='DP methods that infer domains (Ganev et al. 2025, "The importance of being discrete")',
        edits=(
            Edit(
                "tfdpgen/data/values.py",
                "    low, high = value_range\n    outside",
                "    low, high = value_range[0], float(values.max())\n    outside",
            ),
        ),
        caught_by=("tests/data/test_sources.py::test_npz_floats_are_mapped_from_the_declared_range",),
    ),
    Mutant(
        name="chunk_scaled_by_its_brightest_row",
        rule=4,
        bug="The images of a chunk are scaled by its brightest pixel, so that one row changes all others.",
        had_by="class of bug; the continuous columns of CTGAN-based methods (smartnoise-sdk #440)",
        edits=(
            Edit(
                "tfdpgen/privacy/chunks.py",
                "    return tf.cast(images, tf.float32) / np.float32(255)\n",
                "    return tf.cast(images, tf.float32) / tf.cast(tf.reduce_max(images), tf.float32)\n",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_an_image_is_scaled_by_the_declared_range_and_not_by_its_neighbours",),
    ),
    Mutant(
        name="counts_without_noise",
        rule=4,
        bug="How many rows each class has is released as it is.",
        had_by="smartnoise-sdk, conditional GANs before #426 (category frequencies)",
        edits=(Edit(_STATISTICS, "for value in (counts, sums, squares):", "for value in (sums, squares):"),),
        caught_by=(f"{_TEST_MOMENTS}::test_the_counts_are_noised_like_everything_else",),
    ),
    Mutant(
        name="exact_second_moments",
        rule=1,
        bug="Counts and sums of a class are noised, its second moments are not.",
        had_by="class of bug of statistics that are released together",
        edits=(Edit(_STATISTICS, "for value in (counts, sums, squares):", "for value in (counts, sums):"),),
        caught_by=(f"{_TEST_MOMENTS}::test_the_squares_have_the_declared_scale_too",),
    ),
    Mutant(
        name="choice_by_exact_counts",
        rule=4,
        bug="Whether poses suit is decided by exact counts of rows.",
        had_by="class of bug of hyperparameters that are chosen on private rows (Papernot & Steinke 2022)",
        edits=(
            Edit(
                _C_VAE,
                "with_poses, without = counts.release(is_near, noise)",
                "counts.release(is_near, noise); with_poses, without = (part.sum() for part in is_near)",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_poses_are_chosen_by_the_noisy_counts_alone",),
    ),
    Mutant(
        name="components_by_exact_counts",
        rule=4,
        bug="Whether classes have rough components is decided by exact counts of rows.",
        had_by="class of bug of hyperparameters that are chosen on private rows (Papernot & Steinke 2022)",
        edits=(
            Edit(
                _C_VAE,
                "by_means, by_components = counts.release(is_near, noise)",
                "counts.release(is_near, noise); by_means, by_components = (part.sum() for part in is_near)",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_rough_components_are_told_by_the_noisy_counts_alone",),
    ),
    Mutant(
        name="means_divided_by_true_counts",
        rule=4,
        bug="Noisy sums are divided by exact counts.",
        had_by="class of bug; a mean's sensitivity from the exact count is smartnoise-core's (#355)",
        edits=(
            Edit(_STATISTICS, "        del totals, counts\n", "        exact = np.maximum(counts, 1.0)\n"),
            Edit(
                _STATISTICS, "noisy_counts = np.maximum(sums[:, pixels:] / (radius / 2), 1.0)", "noisy_counts = exact"
            ),
        ),
        caught_by=("tests/privacy/test_statistics.py::test_sums_are_divided_by_the_noised_count",),
    ),
    Mutant(
        name="half_the_sensitivity_of_moments",
        rule=4,
        bug="Moments get noise for half of what a row moves them by.",
        had_by="diffprivlib, linear regression (#104: the lower bound stands for both); OpenDP, sized sums (#314)",
        edits=(
            Edit(
                _STATISTICS,
                "self.noise_multiplier * math.sqrt(_COUNT**2 + 1 + self.square_weight**2)",
                "self.noise_multiplier * math.sqrt(_COUNT**2 + 1 + self.square_weight**2) / 2",
            ),
        ),
        caught_by=(f"{_TEST_MOMENTS}::test_the_noise_has_the_declared_scale",),
    ),
    Mutant(
        name="centres_noised_for_a_part_of_a_row",
        rule=4,
        bug="Centres of classes get noise for what a row adds to its class's sum, and none for its count and square.",
        had_by="diffprivlib, linear regression (#104: the lower bound stands for both); OpenDP, sized sums (#314)",
        edits=(Edit(_STATISTICS, "self.noise_multiplier * math.sqrt(_COUNT**2 + 1 + 1)", "self.noise_multiplier"),),
        caught_by=(f"{_TEST_CENTRES}::test_the_noise_has_the_declared_scale",),
    ),
    Mutant(
        name="measured_from_the_rows_own_centres",
        rule=4,
        bug="Moments are measured from the exact means of the classes, which nobody paid for.",
        had_by="class of bug: a scaler that is fitted to private rows",
        edits=(
            Edit(
                _STATISTICS,
                "        return Centres(means * self.radius, distance * self.radius)",
                "        exact = [np.mean(rows[labels == label], axis=0) for label in range(num_classes)]\n"
                "        return Centres(np.array(exact) * self.radius, distance * self.radius)",
            ),
        ),
        caught_by=(f"{_TEST_CENTRES}::test_the_noise_has_the_declared_scale",),
    ),
    Mutant(
        name="components_in_units_of_the_rows",
        rule=4,
        bug="Rows are measured in their exact distance from their components, which nobody paid for.",
        had_by="class of bug: a scaler that is fitted to private rows",
        edits=(
            Edit(
                _C_VAE,
                "            centres, unit = measured_from.means[:, :size], measured_from.distance\n",
                "            centres = measured_from.means[:, :size]\n"
                "            differences = [features - centres[places] for features, places in blocks]\n"
                "            unit = np.sqrt(np.mean(np.sum(np.square(np.concatenate(differences)), axis=1)))\n"
                "            blocks = self._blocks(dataset, size, of_components)\n",
            ),
        ),
        caught_by=(
            f"{_TEST_ONE_WAY}::test_with_the_mechanisms_outputs_given_other_rows_change_nothing"
            "[c_vae with rough components]",
        ),
    ),
    Mutant(
        name="features_unclipped",
        rule=4,
        bug="Features longer than the radius are not scaled down before their moments are added up.",
        had_by="smartnoise-sdk, covariance before #624",
        edits=(
            Edit(
                _STATISTICS,
                "    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)\n",
                "    return rows\n",
            ),
        ),
        caught_by=(f"{_TEST_MOMENTS}::test_no_row_moves_the_noised_vector_by_more_than_the_sensitivity",),
    ),
    Mutant(
        name="temperature_by_private_examples",
        rule=4,
        bug="A labeller is made as sure as it is right about the private examples, which nobody paid for.",
        had_by="class of bug of temperature scaling on training examples (Guo et al. 2017)",
        edits=(
            Edit(
                "tfdpgen/methods/labeller.py",
                "    return prepare_labeller(session).run(verbose)\n",
                "    labeller, rows = prepare_labeller(session).run(verbose), dataset.in_memory()\n"
                "    known = labeller.probabilities(rows.images)[list(range(len(rows))), rows.labels].mean()\n"
                "    return dataclasses.replace(labeller, kernel=labeller.kernel * known)\n",
            ),
        ),
        caught_by=(
            f"{_TEST_ONE_WAY}::test_with_the_mechanisms_outputs_given_other_rows_change_nothing"
            "[stroke_vae with a labeller]",
        ),
    ),
    Mutant(
        name="a_prior_is_chosen_by_the_exact_count",
        rule=4,
        bug="A noisy count says whether strokes suit, and what decides is the exact one, which nobody paid for.",
        had_by="class of bug: choices of models on private rows",
        edits=(
            Edit(
                "tfdpgen/methods/stroke_vae.py",
                "suited = count.release([self._suited(dataset)], noise)[0]",
                "count.release([self._suited(dataset)], noise)\n        suited = np.sum(self._suited(dataset))",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_strokes_are_kept_or_left_by_the_noisy_count_alone",),
    ),
    Mutant(
        name="labels_of_fakes_follow_the_rows",
        rule=4,
        bug="Fakes get labels as often as private rows have them, which nobody paid for.",
        had_by="smartnoise-sdk, conditional GANs before #426, after CTGAN's training by sampling",
        edits=(
            Edit(
                "tfdpgen/methods/dp_gan.py",
                "labels = rng.uniform([preset.fakes], 0, self.spec.num_classes, tf.int64)",
                "chosen = rng.uniform([preset.fakes], 0, len(dataset), tf.int64)\n"
                "            labels = tf.gather(tf.constant(dataset.in_memory().labels), chosen)",
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_with_the_mechanisms_outputs_given_other_rows_change_nothing[dp_gan]",),
    ),
    Mutant(
        name="statistics_again_on_resume",
        rule=4,
        bug="A resumed training releases its statistics once more, with other noise, and pays for one release.",
        had_by="class of bug",
        edits=(
            Edit(
                _TRAIN,
                "    if not is_resumed:\n        trained.prepare",
                "    if True:\n        trained.prepare",
            ),
        ),
        caught_by=(f"{_TEST_ACCOUNT}::test_a_resumed_run_releases_no_statistic_again_repeats_no_step_and_no_noise",),
    ),
    # Reserved before the first step.
    Mutant(
        name="reserved_after_the_training",
        rule=5,
        bug="The ledger learns of a training when it is over: one that crashes has spent nothing.",
        had_by="class of bug; accountants that count what ran (Opacus, tensorflow-privacy) are asked afterwards",
        edits=(
            Edit(
                _TRAIN,
                'reservation = ledger.reserve(rows, event, delta=budget.delta, purpose=f"train {name}", limit=limit)',
                "reservation = None",
            ),
            Edit(
                _TRAIN,
                "    return Trained(release, trained.networks())\n",
                "    if ledger is not None:\n        ledger.reserve(rows, event, delta=budget.delta, limit=limit)\n"
                "    return Trained(release, trained.networks())\n",
            ),
        ),
        caught_by=(f"{_TEST_ACCOUNT}::test_the_whole_cost_is_reserved_before_anything_touches_a_row",),
    ),
    Mutant(
        name="refund_after_a_crash",
        rule=5,
        bug="A training that fails gives its reservation back, though its steps ran.",
        had_by="class of bug",
        edits=(
            Edit(
                _TRAIN,
                "    generator = trained.learn(dataset, plan, noise, verbose, backup)\n",
                "    try:\n"
                "        generator = trained.learn(dataset, plan, noise, verbose, backup)\n"
                "    except BaseException:\n"
                "        if ledger is not None:\n"
                "            with ledger._transaction() as connection:\n"
                '                connection.execute("DELETE FROM reservations WHERE reservation = ?", (reservation,))\n'
                "        raise\n",
            ),
        ),
        caught_by=(f"{_TEST_ACCOUNT}::test_a_run_that_fails_gives_nothing_back",),
    ),
    Mutant(
        name="limit_forgets_earlier_runs",
        rule=5,
        bug="A limit is held against each run alone, and not against all of them together.",
        had_by="class of bug",
        edits=(
            Edit(
                "tfdpgen/privacy/ledger.py",
                "dp_accounting.ComposedDpEvent([*self._events(connection, dataset), event])",
                "dp_accounting.ComposedDpEvent([event])",
            ),
        ),
        caught_by=("tests/privacy/test_ledger.py::test_a_limit_refuses_before_anything_is_written",),
    ),
    Mutant(
        name="a_claimed_block_runs_again",
        rule=5,
        bug="A resumed training repeats the steps since its last checkpoint, which an observer may have seen.",
        had_by="class of bug of trainings that resume, accounted or not",
        edits=(
            Edit(
                "tfdpgen/privacy/backup.py",
                'self._claimed = int(facts["claimed"])',
                'self._claimed = int(facts["done"])',
            ),
            Edit(
                "tfdpgen/privacy/backup.py",
                "        if first < plan.steps:\n",
                "        if first < plan.steps and self._kept is None:\n",
            ),
        ),
        caught_by=(
            "tests/privacy/test_backup.py::test_a_resumed_training_goes_on_behind_the_claimed_block_with_the_saved_state[7]",
        ),
    ),
    Mutant(
        name="resumed_with_other_rows",
        rule=5,
        bug="The progress of one data set goes on with the rows of another, whose ledger knows nothing of it.",
        had_by="class of bug",
        edits=(Edit(_TRAIN, '        "rows": rows,\n', '        "rows": "",\n'),),
        caught_by=(f"{_TEST_ACCOUNT}::test_the_progress_of_other_rows_is_refused",),
    ),
    # Entropy from the operating system.
    Mutant(
        name="one_seed_for_all_noise",
        rule=6,
        bug="Every source of noise has the same key, so that noise can be taken off again.",
        had_by="class of bug; Garfinkel & Leclerc 2020 on randomness in deployed DP",
        edits=(
            Edit(
                _NOISE,
                "self._draw_key: Callable[[int], bytes] = os.urandom",
                "self._draw_key: Callable[[int], bytes] = np.random.default_rng(0).bytes",
            ),
        ),
        caught_by=(f"{_TEST_NOISE}::test_every_key_and_every_draw_gives_other_noise_in_a_graph_too",),
    ),
    Mutant(
        name="noise_of_the_global_seed",
        rule=6,
        bug="`tf.random.set_seed` reaches the noise.",
        had_by="tensorflow-privacy; Opacus without `secure_mode`",
        edits=(
            Edit(
                _NOISE,
                "normals = tf.reshape(tf.bitcast(pairs, tf.float32), [2 * blocks])",
                "normals = tf.random.normal([2 * blocks], stddev=stddev)",
            ),
        ),
        caught_by=(f"{_TEST_OPTIMIZER}::test_noise_is_fresh_in_every_step_and_no_global_seed_reaches_it",),
    ),
    Mutant(
        name="noise_of_the_trace",
        rule=6,
        bug="The draw is numbered while the graph is traced: every step adds the same noise, whose difference is 0.",
        had_by="class of bug of NumPy noise in graphs and of reused JAX keys",
        edits=(
            Edit(
                _NOISE,
                "        draw = tf.cast(self._draws.assign_add(1), tf.uint32)\n",
                '        self._traced = getattr(self, "_traced", 0) + 1\n'
                "        draw = tf.constant(self._traced, tf.uint32)\n",
            ),
        ),
        caught_by=(f"{_TEST_OPTIMIZER}::test_noise_is_fresh_in_every_step_and_no_global_seed_reaches_it",),
    ),
    Mutant(
        name="noise_of_the_run_seed",
        rule=6,
        bug="The seed of initial weights is that of the noise too, and stands in every configuration.",
        had_by="class of bug",
        edits=(
            Edit(
                _TRAIN,
                "noise = NoiseSource.insecure(seed) if insecure_reproducible else NoiseSource()",
                "noise = NoiseSource.insecure(seed)",
            ),
        ),
        caught_by=(f"{_TEST_ACCOUNT}::test_noise_differs_from_run_to_run_whatever_the_seed",),
    ),
    Mutant(
        name="draws_of_a_fixed_seed",
        rule=6,
        bug="Which rows are drawn can be computed by anyone: there is no amplification by sampling.",
        had_by="class of bug of seeded data loaders",
        edits=(
            Edit(
                _PLAN,
                "rng = (noise or NoiseSource()).numpy_generator()",
                "rng = NoiseSource.insecure(0).numpy_generator()",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_draws_differ_between_runs_unless_seeded",),
    ),
    Mutant(
        name="resume_repeats_noise",
        rule=6,
        bug="A resumed training starts its noise anew from what was saved: the same noise hides two different sums.",
        had_by="class of bug of checkpoints that hold the state of generators",
        edits=(
            Edit(
                _TRAIN,
                "    mechanisms = [*alongside,",
                "    if backup is not None:\n        noise._draw_key = NoiseSource.insecure(seed)._draw_key\n"
                "    mechanisms = [*alongside,",
            ),
        ),
        caught_by=(f"{_TEST_ACCOUNT}::test_a_resumed_run_releases_no_statistic_again_repeats_no_step_and_no_noise",),
    ),
    Mutant(
        name="seeded_noise_called_secure",
        rule=6,
        bug="A run with seeded noise states that its noise came from the operating system.",
        had_by="class of bug",
        edits=(Edit(_NOISE, 'return OPERATING_SYSTEM if self.is_secure else "seeded"', "return OPERATING_SYSTEM"),),
        caught_by=(f"{_TEST_PLAN}::test_a_statement_about_seeded_noise_says_not_for_release_first",),
    ),
    # Only a release leaves.
    Mutant(
        name="private_count_in_the_release",
        rule=7,
        bug="How many gradients were not finite is saved with the release.",
        had_by="class of bug of training logs that travel with a model",
        edits=(
            Edit(
                "tfdpgen/release/release.py",
                '            "augmentation": self.augmentation.to_dict(),\n',
                '            "augmentation": self.augmentation.to_dict(),\n            "non_finite_examples": 0,\n',
            ),
        ),
        caught_by=(f"{_TEST_ONE_WAY}::test_a_saved_release_holds_these_facts_and_no_other",),
    ),
    Mutant(
        name="key_in_the_checkpoint",
        rule=7,
        bug="A checkpoint holds the key of the noise, which takes the noise off every step.",
        had_by="class of bug of generators that are tracked like weights",
        edits=(Edit(_NOISE, "class GaussianNoise:", "class GaussianNoise(tf.Module):"),),
        caught_by=(f"{_TEST_NOISE}::test_no_checkpoint_can_hold_the_key_or_the_count_of_draws",),
    ),
)
