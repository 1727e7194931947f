"""The mutants: bugs that real libraries and papers had, each as an exact replacement, and what has to catch them.

A mutant whose text is no longer found exactly once is an error, here and in the default test suite: whoever changes the
code moves the mutant along. `had_by` names what is public about the bug; "class of bug" says that it is easy to make
and that no case of it is known here.
"""

from __future__ import annotations

from tests.mutations.mutant import Edit, Mutant

_OPTIMIZER = "tfdpgen/privacy/optimizer.py"
_DP_SGD = "tfdpgen/privacy/mechanisms/dp_sgd.py"
_STATISTICS = "tfdpgen/privacy/mechanisms/gaussian_statistics.py"
_MECHANISM = "tfdpgen/privacy/mechanisms/base.py"
_SAMPLING = "tfdpgen/privacy/sampling.py"
_NOISE = "tfdpgen/privacy/noise.py"
_BOOKKEEPING = "tfdpgen/privacy/clipping/bookkeeping.py"
_FACTORS = "tfdpgen/privacy/clipping/factors.py"
_BOOK = "tfdpgen/privacy/accounts/book.py"
_IDENTITY = "tfdpgen/privacy/accounts/identity.py"
_HISTORY = "tfdpgen/privacy/accounts/history.py"
_COHORTS = "tfdpgen/privacy/accounts/cohorts.py"
_GROUPS = "tfdpgen/privacy/accounts/groups.py"
_TEST_LEDGER = "tests/privacy/test_ledger.py"
_VARIANTS = "test_no_other_form_of_the_examples_has_a_fresh_account"
_SESSION = "tfdpgen/privacy/session.py"
_TRAINER = "tfdpgen/privacy/trainer.py"
_ISOLATION = "tfdpgen/privacy/isolation.py"
_BACKUP = "tfdpgen/privacy/backup.py"
_TRAINING = "tfdpgen/methods/training.py"
_MIXTURE = "tfdpgen/methods/gaussian_mixture.py"
_C_VAE = "tfdpgen/methods/c_vae.py"
_DP_GAN = "tfdpgen/methods/dp_gan.py"
_DP_DIFFUSION = "tfdpgen/methods/dp_diffusion.py"
_COUNTS = "tfdpgen/privacy/mechanisms/noisy_counts.py"
_ENSEMBLE = "tfdpgen/privacy/ensemble.py"
_GRADIENT = "tfdpgen/privacy/mechanisms/sanitised_gradient.py"
_VOTES = "tfdpgen/privacy/mechanisms/votes.py"
_FEDERATED = "tfdpgen/privacy/mechanisms/federated_average.py"
_SITE = "tfdpgen/federation/site.py"
_ROUNDS = "tfdpgen/federation/rounds.py"

_TEST_OPTIMIZER = "tests/privacy/test_optimizer.py"
_TEST_PLAN = "tests/privacy/test_plan.py"
_TEST_SAMPLING = "tests/privacy/test_sampling.py"
_TEST_NOISE = "tests/privacy/test_noise.py"
_TEST_CLIPPING = "tests/privacy/test_clipping.py"
_TEST_RULES = "tests/privacy/test_layer_rules.py"
_TEST_SESSION = "tests/privacy/test_session.py"
_TEST_OUTPUTS = "tests/privacy/test_session_outputs.py"
_TEST_ISOLATION = "tests/privacy/test_isolation.py"
_TEST_STATISTICS = "tests/privacy/test_gaussian_statistics.py"
_TEST_ENSEMBLE = "tests/privacy/test_ensemble.py"
_TEST_VOTES = "tests/privacy/test_votes.py"
_TEST_FEDERATION = "tests/privacy/test_federation.py"
_TEST_SITES = "tests/federation/test_sites.py"
_TEST_REMOTE = "tests/federation/test_remote_sessions.py"
_TEST_CHUNKS = "tests/methods/test_chunks.py"
_TEST_LABELLER = "tests/release/test_labeller.py"
_AUDIT = "tests/attacks/audit/test_white_box.py::test_at_epsilon_4_the_bound_comes_near_and_stays_below"
_CALLED_TWICE = "test_a_layer_that_is_called_twice_counts_with_the_sum_of_its_calls[layer0-shape0]"
_CONFORMANCE = "tests/conformance/test_methods.py"
_REPLAY = "tests/conformance/test_replay.py::test_no_neighbour_moves_a_sum_by_more_than_its_sensitivity"
_SENSITIVITY = f"{_TEST_STATISTICS}::test_one_example_moves_a_sum_by_at_most_the_sensitivity"
_OF_THE_NOISED_SUM = f"{_TEST_STATISTICS}::test_a_result_is_a_function_of_the_noised_sum_alone"
_RESERVED_FIRST = f"{_TEST_SESSION}::test_the_plan_is_reserved_whole_and_once_before_the_first_access"
_RESUMED = f"{_TEST_OUTPUTS}::test_a_resumed_training_repeats_no_step_and_no_noise"

_DRAW = "noise = self._noise.draw([value.shape for value in sums], self._stddev)"
_BOOKKEEPING_RETURN = (
    "    return ClippedSum([sums.get(id(variable), tf.zeros_like(variable)) for variable in variables], norms)"
)
_STDDEV = "stddev = l2_norm_clip * noise_multiplier if noise_multiplier else 0.0"
_NOISED = "                kept[key] = total + noise\n"
_ALONE = "if not np.allclose(there, here[kept], rtol=1e-3, atol=tolerance + 1e-12, equal_nan=True):"

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
        bug="Where noise cannot be sampled, an `except` goes on without.",
        had_by="class of bug",
        edits=(
            Edit(
                _OPTIMIZER,
                f"        {_DRAW}\n",
                f"        try:\n            {_DRAW}\n        except Exception:\n"
                "            noise = [tf.zeros_like(value) for value in sums]\n",
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_where_noise_cannot_be_drawn_nothing_comes_out",),
    ),
    Mutant(
        name="half_the_probability_is_accounted",
        rule=1,
        bug="The event holds half of the probability that examples are sampled with.",
        had_by="class of bug",
        edits=(
            Edit(
                _DP_SGD,
                "self.sampling_probability, calibrated(",
                "self.sampling_probability / 2, calibrated(",
            ),
        ),
        caught_by=(f"{_TEST_PLAN}::test_epsilon_equals_dp_accountings[1.7-pld-PLDAccountant]",),
    ),
    Mutant(
        name="twice_the_probability_is_drawn",
        rule=1,
        bug="Examples are sampled with twice the probability that is accounted.",
        had_by="class of bug",
        edits=(
            Edit(
                _DP_SGD,
                "            self.sampling_probability,\n            self.steps",
                "            min(1.0, 2 * self.sampling_probability),\n            self.steps",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_inclusion_is_independent_with_the_plans_probability",),
    ),
    Mutant(
        name="one_step_more_runs",
        rule=1,
        bug="One step more runs than is accounted.",
        had_by="smartnoise-sdk, GANs before #424",
        edits=(Edit(_DP_SGD, "self.steps - first_step,", "self.steps - first_step + 1,"),),
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
        bug="A delta of 1 / n or more is accepted, which a mechanism that publishes an example meets.",
        had_by="class of bug",
        edits=(Edit("tfdpgen/choices.py", "if delta >= 1 / count:", "if delta >= 1:"),),
        caught_by=(f"{_TEST_PLAN}::test_a_delta_that_is_not_below_one_over_n_is_refused",),
    ),
    Mutant(
        name="replacing_is_accounted_as_removing",
        rule=1,
        bug="The epsilon under replace-one is that of an example against nothing.",
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
        bug="What was added to a plan, the labeller's DP-SGD, is missing in the event that is reserved and released.",
        had_by="class of bug; wrong accounting is among what Ganev et al. 2024 found in six PATE-GANs",
        edits=(
            Edit(
                "tfdpgen/privacy/plan.py",
                "return accounting.compose(list(self.mechanisms.values()))",
                'return accounting.compose([part for key, part in self.mechanisms.items() if key != "labeller"])',
            ),
        ),
        caught_by=(
            f"{_CONFORMANCE}::test_the_statement_is_about_what_ran_and_within_the_budget[gaussian_mixture, labeller]",
        ),
    ),
    Mutant(
        name="mechanism_run_twice",
        rule=1,
        bug="A session forgets which mechanisms it has begun: each may be carried out as often as a method likes.",
        had_by="class of bug; odometers that are asked after the fact",
        edits=(Edit(_SESSION, "            held.begun.add(key)\n", "            held.begun.discard(key)\n"),),
        caught_by=(f"{_TEST_SESSION}::test_a_mechanism_runs_once",),
    ),
    Mutant(
        name="shards_that_overlap",
        rule=1,
        bug="An example may be in two shards, whose costs add up then, and is accounted as in one.",
        had_by="class of bug of parallel composition (McSherry 2009 asks for disjoint inputs)",
        edits=(Edit(_SESSION, "dealt[0] == number", "np.isin(dealt[0], (number, number + 1))"),),
        caught_by=(
            f"{_TEST_SESSION}::test_shards_are_disjoint_cover_everything_and_cost_what_one_costs",
            f"{_TEST_SESSION}::test_one_example_more_is_in_one_shard_and_moves_no_other",
        ),
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
        bug="Examples beyond the physical batch are dropped: whether one counts depends on how many others came.",
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
        bug="A norm from Gram matrices that cancel comes out as anything, also as 0, and its example passes unclipped.",
        had_by="class of bug of ghost norms in 32 bits",
        edits=(Edit("tfdpgen/privacy/clipping/gram.py", "_ROUNDING = 1e-7", "_ROUNDING = 0.0"),),
        caught_by=(f"{_TEST_CLIPPING}::test_norms_from_grams_are_not_too_small_where_large_entries_cancel",),
    ),
    Mutant(
        name="gradients_that_are_not_finite_pass",
        rule=3,
        bug="An example whose gradient is not finite makes every weight not finite: everyone sees that it was there.",
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
        bug="Networks may normalise over the batch: one example then moves the gradients of all others.",
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
        bug="Slots that pad a batch count: the example at position 0 comes up many times in every step.",
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
        name="divided_by_the_sampled_examples",
        rule=3,
        bug="The noised sum is divided by how many examples were sampled, which is private.",
        had_by="tensorflow-privacy; Opacus divides by a figure that the number of examples decides (#571)",
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
        bug="The KL of a VAE is a mean over the batch, added to each loss: every example is in everyone's gradient.",
        had_by="class of bug of losses that are added to a model (Keras's `add_loss`), which no tape sees by example",
        edits=(
            Edit(
                _C_VAE,
                "return errors + divergences",
                "return errors + tf.reduce_mean(divergences)",
            ),
        ),
        caught_by=(f"{_CONFORMANCE}::test_losses_and_features_are_of_each_example_alone[c_vae, plain]",),
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
        name="a_fake_for_every_sampled_example",
        rule=3,
        bug="Fakes weigh as much as examples were sampled: an example brings a fake's gradient along with its own.",
        had_by="class of bug of DP-GANs that pair real and fake examples",
        edits=(
            Edit(
                _TRAINER,
                "weight = mechanism.expected_batch_size / tf.cast(tf.shape(losses)[0], tf.float32)",
                "weight = tf.reduce_sum(weights) / tf.cast(tf.shape(losses)[0], tf.float32)",
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_public_losses_weigh_as_many_examples_as_are_expected",),
    ),
    Mutant(
        name="latents_of_the_run_seed",
        rule=3,
        bug="A public seed and the place in the batch decide what `batch.normal` draws for an example: one more "
        "example gives all later ones other latents, and moves the sum by many clips.",
        had_by="class of bug of seeded generators in private steps",
        edits=(Edit(_TRAINER, "noise.examples()", "NoiseSource.insecure(0).examples()"),),
        caught_by=(
            f"{_CONFORMANCE}::test_one_example_moves_a_step_by_at_most_its_clip[c_vae, plain]",
            f"{_CONFORMANCE}::test_latents_of_examples_follow_no_public_seed[c_vae, plain]",
        ),
    ),
    Mutant(
        name="noise_levels_of_another_example",
        rule=3,
        bug="A private image gets the noise level that was drawn for the one in the opposite place of its batch: one "
        "more example gives all of them other levels, and moves the sum by many clips.",
        had_by="class of bug of draws that are indexed by position",
        edits=(
            Edit(
                _DP_DIFFUSION,
                "places = tf.reshape(batch.uniform([views]), [-1, 1])",
                "places = tf.reverse(tf.reshape(batch.uniform([views]), [-1, 1]), [0])",
            ),
        ),
        caught_by=(f"{_CONFORMANCE}::test_losses_and_features_are_of_each_example_alone[dp_diffusion]",),
    ),
    Mutant(
        name="label_counts_at_half_their_sensitivity",
        rule=1,
        bug="Label counts are noised as if an example added 1/2 to the count of its class, as in the class means.",
        had_by="class of bug of a sensitivity that is copied",
        edits=(Edit(_COUNTS, "return 1.0", "return 0.5"),),
        caught_by=(
            f"{_SENSITIVITY}[0.3-0]",
            f"{_CONFORMANCE}::test_one_example_moves_every_sum_by_at_most_its_sensitivity[gaussian_mixture, counted]",
        ),
    ),
    Mutant(
        name="random_numbers_of_ones_own_pass",
        rule=3,
        bug="A loss or a transform may draw by a public seed and the place in the batch, as dropout does.",
        had_by="class of bug of seeded generators in private steps",
        edits=(Edit(_ISOLATION, "if _RANDOM.search(operation):", 'if operation == "RandomUniformInt":'),),
        caught_by=(
            f"{_TEST_ISOLATION}::test_transforms_that_mix_keep_or_draw_are_refused[seeded noise]",
            f"{_TEST_ISOLATION}::test_losses_that_mix_keep_or_draw_are_refused[seeded uniforms]",
        ),
    ),
    Mutant(
        name="mixing_is_not_looked_for",
        rule=3,
        bug="A loss or a transform may average over the batch: one example then moves what all others add.",
        had_by="class of bug of losses and scalers that are written for a batch",
        edits=(Edit(_ISOLATION, _ALONE, "if False:"),),
        caught_by=(
            f"{_TEST_ISOLATION}::test_transforms_that_mix_keep_or_draw_are_refused[centred]",
            f"{_TEST_ISOLATION}::test_losses_that_mix_keep_or_draw_are_refused[added up]",
        ),
    ),
    Mutant(
        name="layer_that_mixes",
        rule=3,
        bug="A layer that subtracts the mean of the batch is let through: the session looks neither at layers nor at "
        "what they give.",
        had_by="class of bug of validators that are called once for each framework (Opacus's ModuleValidator)",
        edits=(
            Edit(_SESSION, "            check_network(network)\n", "            network.summary\n"),
            Edit(_ISOLATION, _ALONE, "if False:"),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_a_network_that_mixes_examples_is_refused_while_nothing_is_spent[_Centred]",),
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
                "    return features, all_labels\n",
                "    return features - features.mean(axis=0), all_labels\n",
            ),
        ),
        caught_by=(
            f"{_TEST_LABELLER}::test_one_example_moves_what_is_noised_by_at_most_the_clip_and_padding_by_nothing",
        ),
    ),
    # Nothing that depends on the examples is unpaid.
    Mutant(
        name="features_centred_on_their_block",
        rule=4,
        bug="Features are centred on the mean of the examples that are read together: nothing bounds the part of one.",
        had_by="class of bug of scalers that are fitted beforehand",
        edits=(
            Edit(
                _MIXTURE,
                "            return tf.concat([own, tf.cast(groups, tf.float32)[:, None]], axis=1)\n",
                "            own -= tf.reduce_mean(own, axis=0)\n"
                "            return tf.concat([own, tf.cast(groups, tf.float32)[:, None]], axis=1)\n",
            ),
        ),
        caught_by=(f"{_CONFORMANCE}::test_losses_and_features_are_of_each_example_alone[gaussian_mixture]",),
    ),
    Mutant(
        name="range_taken_from_the_examples",
        rule=4,
        bug="Values are scaled by the largest that occurs, which is one example's.",
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
        name="chunk_scaled_by_its_brightest_image",
        rule=4,
        bug="The images of a chunk are scaled by its brightest pixel, so that one example changes all others.",
        had_by="class of bug; the continuous columns of CTGAN-based methods (smartnoise-sdk #440)",
        edits=(
            Edit(
                "tfdpgen/privacy/chunks.py",
                "    return tf.cast(images, tf.float32) / np.float32(255)\n",
                "    return tf.cast(images, tf.float32) / tf.cast(tf.reduce_max(images), tf.float32)\n",
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_images_are_scaled_by_the_declared_range_and_not_by_their_neighbours",),
    ),
    Mutant(
        name="counts_without_noise",
        rule=4,
        bug="How many examples each group has is released as it is.",
        had_by="smartnoise-sdk, conditional GANs before #426 (category frequencies)",
        edits=(
            Edit(
                _SESSION,
                _NOISED,
                '                noise.reshape(getattr(mechanisms[key], "num_groups", 1), -1)[:, 0] = 0.0\n' + _NOISED,
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_counts_sums_and_squares_are_all_noised_for_the_sensitivity_of_the_whole",),
    ),
    Mutant(
        name="exact_second_moments",
        rule=1,
        bug="Counts and sums of a group are noised, its second moments are not.",
        had_by="class of bug of statistics that are released together",
        edits=(
            Edit(
                _SESSION,
                _NOISED,
                "                part: Any = mechanisms[key]\n"
                '                if hasattr(part, "num_groups"):\n'
                "                    noise.reshape(part.num_groups, -1)[:, 1 + part.num_features :] = 0.0\n" + _NOISED,
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_counts_sums_and_squares_are_all_noised_for_the_sensitivity_of_the_whole",),
    ),
    Mutant(
        name="choice_by_exact_counts",
        rule=4,
        bug="A private selection rests on an exact count of votes.",
        had_by="class of bug of hyperparameters that are chosen on private examples (Papernot & Steinke 2022)",
        edits=(Edit(_SESSION, _NOISED, "                kept[key] = total + noise * (total.size > 1)\n"),),
        caught_by=(f"{_TEST_OUTPUTS}::test_a_single_count_is_noised_too",),
    ),
    Mutant(
        name="means_divided_by_true_counts",
        rule=4,
        bug="A mechanism keeps the exact counts as it adds up, and divides the noisy sums by them.",
        had_by="class of bug; a mean's sensitivity from the exact count is smartnoise-core's (#355)",
        edits=(
            Edit(
                _STATISTICS,
                "        vectors = bounded(features, self.radius) / self.radius\n",
                "        vectors = bounded(features, self.radius) / self.radius\n"
                '        object.__setattr__(self, "_exact", np.bincount(labels, minlength=self.num_classes))\n',
            ),
            Edit(
                _STATISTICS,
                "        counts = np.maximum(sums[:, 0] / _COUNT, 1.0)\n"
                "        means = sums[:, 1:] / counts[:, None]\n        squares,",
                '        counts = np.maximum(getattr(self, "_exact"), 1.0)\n'
                "        means = sums[:, 1:] / counts[:, None]\n        squares,",
            ),
        ),
        caught_by=(f"{_OF_THE_NOISED_SUM}[class means]",),
    ),
    Mutant(
        name="features_of_any_width",
        rule=4,
        bug="A transform gives one column where many are planned: NumPy copies it, and one example moves each.",
        had_by="this package, found by a reader who tried it",
        edits=(Edit(_SESSION, "if features.shape[1] != mechanism.num_columns:", "if False:"),),
        caught_by=(
            f"{_TEST_SESSION}::test_a_transform_of_another_width_than_planned_is_refused_while_nothing_is_spent",
        ),
    ),
    Mutant(
        name="mixing_is_looked_for_among_like_images",
        rule=3,
        bug="Functions are tried on images that are alike, with labels that come once: a class's mean is not noticed.",
        had_by="this package, found by a reader who tried it",
        edits=(
            Edit(
                _ISOLATION,
                "np.concatenate([np.resize([0, 0, 1], _SIZE), np.resize([0, 1, 2, 0], _SIZE)]) % spec.num_classes",
                "np.arange(2 * _SIZE) % spec.num_classes",
            ),
            Edit(_ISOLATION, "_SIZE = 12 ", "_SIZE = 6 "),
        ),
        caught_by=(f"{_TEST_ISOLATION}::test_mixing_within_a_class_is_refused[10-_centred_on_classes]",),
    ),
    Mutant(
        name="half_the_sensitivity",
        rule=4,
        bug="One-shot sums get noise for half of what an example moves them by.",
        had_by="diffprivlib, linear regression (#104: the lower bound stands for both); OpenDP, sized sums (#314)",
        edits=(
            Edit(
                _MECHANISM,
                "return calibrated(self.noise_multiplier) * self.sensitivity",
                "return calibrated(self.noise_multiplier) * self.sensitivity / 2",
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_counts_sums_and_squares_are_all_noised_for_the_sensitivity_of_the_whole",),
    ),
    Mutant(
        name="covariance_noise_for_another_sensitivity",
        rule=4,
        bug="Second moments are released times a weight, and their noise is for moments without it.",
        had_by="diffprivlib, linear regression (#104: the lower bound stands for both); OpenDP, sized sums (#314)",
        edits=(
            Edit(
                _STATISTICS,
                "return math.sqrt(_COUNT**2 + 1 + self.square_weight**2)",
                "return math.sqrt(_COUNT**2 + 1 + 1)",
            ),
        ),
        caught_by=(_SENSITIVITY,),
    ),
    Mutant(
        name="group_counts_twice",
        rule=4,
        bug="An example adds to the statistics of two groups.",
        had_by="class of bug of assignments by threshold, and of soft ones",
        edits=(
            Edit(
                _STATISTICS,
                "vectors[groups == group]",
                "vectors[(groups == group) | (groups == group - 1)]",
            ),
        ),
        caught_by=(_SENSITIVITY,),
    ),
    Mutant(
        name="means_noised_for_a_part_of_an_example",
        rule=4,
        bug="Class means get noise for what an example adds to its class's sum, and none for its count and square.",
        had_by="diffprivlib, linear regression (#104: the lower bound stands for both); OpenDP, sized sums (#314)",
        edits=(Edit(_STATISTICS, "return math.sqrt(_COUNT**2 + 1 + 1)", "return 1.0"),),
        caught_by=(_SENSITIVITY,),
    ),
    Mutant(
        name="measured_from_the_exact_means",
        rule=4,
        bug="A session keeps the noised sum and hands out the exact one: covariances are measured from exact means.",
        had_by="class of bug: a scaler that is fitted to private examples",
        edits=(
            Edit(
                _SESSION,
                "return {key: mechanism.result(cast(Any, kept[key]))",
                "return {key: mechanism.result(cast(Any, sums[key]))",
            ),
        ),
        caught_by=(f"{_TEST_SESSION}::test_the_noise_of_a_one_shot_mechanism_has_the_plans_scale",),
    ),
    Mutant(
        name="scale_of_the_exact_examples",
        rule=4,
        bug="Examples are measured in their exact distance from the means of their classes, which nobody paid for.",
        had_by="class of bug: a scaler that is fitted to private examples",
        edits=(
            Edit(
                _STATISTICS,
                "        return np.append(sums, np.sum(np.square(vectors)))\n",
                '        object.__setattr__(self, "_exact", float(np.mean(np.sum(np.square(vectors), axis=1))))\n'
                "        return np.append(sums, np.sum(np.square(vectors)))\n",
            ),
            Edit(
                _STATISTICS,
                "scale = math.sqrt(max(square, 2 * error, 1e-4))",
                'scale = math.sqrt(max(getattr(self, "_exact"), 1e-4))',
            ),
        ),
        caught_by=(f"{_OF_THE_NOISED_SUM}[class means]",),
    ),
    Mutant(
        name="features_unclipped",
        rule=4,
        bug="Features longer than the clip norm are not scaled down before they are added up, in any mechanism.",
        had_by="smartnoise-sdk, covariance before #624",
        edits=(
            Edit(
                _MECHANISM,
                "return vectors * (radius / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), radius))",
                "return vectors",
            ),
        ),
        caught_by=(_SENSITIVITY,),
    ),
    Mutant(
        name="means_without_clip",
        rule=4,
        bug="The features of class means are divided by the clip norm and not clipped to it.",
        had_by="class of bug of bounds that are taken for a fact about the data",
        edits=(
            Edit(
                _STATISTICS,
                "vectors = bounded(features, self.radius) / self.radius",
                "vectors = np.nan_to_num(np.asarray(features, np.float64)) / self.radius",
            ),
        ),
        caught_by=(_SENSITIVITY,),
    ),
    Mutant(
        name="votes_without_bound",
        rule=4,
        bug="An example may vote as often as it likes for what is counted.",
        had_by="class of bug of counts of contributions that are not bounded",
        edits=(
            Edit(
                "tfdpgen/privacy/mechanisms/noisy_counts.py",
                "np.clip(np.nan_to_num(np.asarray(features, np.float64), nan=0.0), -1.0, 1.0)",
                "np.nan_to_num(np.asarray(features, np.float64), nan=0.0)",
            ),
        ),
        caught_by=(_SENSITIVITY,),
    ),
    Mutant(
        name="step_size_by_the_sample",
        rule=4,
        bug="The learning rate of a step follows how many examples were sampled, which nobody paid for.",
        had_by="class of bug of learning rates that are scaled with the batch",
        edits=(
            Edit(
                _TRAINER,
                "optimizer.learning_rate = self._learning_rate(number)",
                "optimizer.learning_rate = self._learning_rate(number) * float(batch.weights.sum()) / 8",
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_with_the_noised_gradients_given_the_examples_change_nothing",),
    ),
    Mutant(
        name="what_is_seen_may_be_kept",
        rule=4,
        bug="A loss or a transform may assign what it sees to variables, print it, or hand it to Python.",
        had_by="class of bug of metrics and batch statistics that are updated in a private step",
        edits=(
            Edit(
                _ISOLATION,
                "is_stateful = operation not in _HARMLESS and (definition is None or definition.is_stateful)",
                "is_stateful = operation not in _HARMLESS and definition is None",
            ),
        ),
        caught_by=(
            f"{_TEST_ISOLATION}::test_transforms_that_mix_keep_or_draw_are_refused[kept]",
            f"{_TEST_ISOLATION}::test_losses_that_mix_keep_or_draw_are_refused[kept]",
        ),
    ),
    Mutant(
        name="stateless_python_passes",
        rule=4,
        bug="A loss or a transform may hand what it sees to a Python function that calls itself stateless.",
        had_by="this package, found by a reader who tried it",
        edits=(Edit(_ISOLATION, "if is_stateful or _OUTSIDE.search(operation):", "if is_stateful:"),),
        caught_by=(
            f"{_TEST_ISOLATION}::test_transforms_that_mix_keep_or_draw_are_refused[given to NumPy]",
            f"{_TEST_ISOLATION}::test_losses_that_mix_keep_or_draw_are_refused[given to NumPy]",
        ),
    ),
    Mutant(
        name="labels_of_fakes_follow_the_examples",
        rule=4,
        bug="Fakes get labels that private examples have, from a variable that the loss may write to.",
        had_by="smartnoise-sdk, conditional GANs before #426, after CTGAN's training by sampling",
        edits=(
            Edit(
                _DP_GAN,
                "            training.step(lambda images, labels: tf.reduce_mean"
                "(losses(critic(images), labels, 1.0)))\n",
                "            latents, labels = training.draw()\n"
                "            training.step(\n"
                "                lambda images, labels: tf.reduce_mean(losses(critic(images), labels, 1.0)),\n"
                "                (latents, labels % (tf.reduce_max(seen) + 1)),\n"
                "            )\n",
            ),
            Edit(
                _DP_GAN,
                "            return losses(critic(batch.images), batch.labels, 1.0)\n",
                "            seen.assign(tf.reduce_max(batch.labels))\n"
                "            return losses(critic(batch.images), batch.labels, 1.0)\n",
            ),
            Edit(
                _DP_GAN,
                "        def loss_of_real(",
                "        seen = tf.Variable(tf.zeros([], tf.int64), trainable=False)\n\n        def loss_of_real(",
            ),
            Edit(
                _ISOLATION,
                "is_stateful = operation not in _HARMLESS and (definition is None or definition.is_stateful)",
                "is_stateful = operation not in _HARMLESS and definition is None",
            ),
        ),
        caught_by=(
            f"{_CONFORMANCE}::test_with_the_outputs_of_its_mechanisms_given_the_examples_change_nothing[dp_gan]",
        ),
    ),
    Mutant(
        name="statistics_again_on_resume",
        rule=4,
        bug="A resumed training releases its statistics once more, with other noise, and pays for one release.",
        had_by="class of bug",
        edits=(
            Edit(
                _SESSION,
                "        return {key: mechanism.result(cast(Any, kept[key]))",
                "        for key, mechanism in mechanisms.items():\n"
                "            asked = {key: (mechanism, transforms[key])}\n"
                "            total = sums_of(held.dataset(), asked, by_user=False)[key]\n"
                "            noise = held.noise.numpy_generator().normal(scale=mechanism.stddev, size=total.shape)\n"
                "            kept[key] = total + noise\n"
                "        return {key: mechanism.result(cast(Any, kept[key]))",
            ),
        ),
        caught_by=(f"{_TEST_OUTPUTS}::test_a_resumed_session_gives_what_it_gave_of_the_same_examples_alone",),
    ),
    # Reserved before the first step.
    Mutant(
        name="reserved_after_the_training",
        rule=5,
        bug="The ledger learns of a mechanism when it has run: one that crashes has spent nothing.",
        had_by="class of bug; accountants that count what ran (Opacus, tensorflow-privacy) are asked afterwards",
        edits=(
            Edit(
                _SESSION,
                "        self._mark_begun(*keys)\n        held.reserve()\n",
                "        self._mark_begun(*keys)\n",
            ),
            Edit(
                _SESSION,
                "        return {key: mechanism.result(cast(Any, kept[key]))",
                "        held.reserve()\n        return {key: mechanism.result(cast(Any, kept[key]))",
            ),
        ),
        caught_by=(
            _RESERVED_FIRST,
            f"{_CONFORMANCE}::test_the_budget_is_reserved_before_the_first_access_and_stays_reserved[gaussian_mixture]",
        ),
    ),
    Mutant(
        name="plan_exchanged_after_reservation",
        rule=5,
        bug="A session carries out another plan than it was opened with, and whose cost is reserved.",
        had_by="class of bug of settings that are changed between accounting and training",
        edits=(
            Edit(_SESSION, "if held.event != accounting.event_to_dict(self._plan.event):", "if held.event is None:"),
        ),
        caught_by=(f"{_TEST_SESSION}::test_the_plan_cannot_be_changed",),
    ),
    Mutant(
        name="unreserved_public_result",
        rule=5,
        bug="Before the first mechanism a public result is neither paid for nor kept: a resumed training computes it "
        "anew and reads what was released in another space.",
        had_by="class of bug of trainings that resume",
        edits=(Edit(_SESSION, "        if held.backup is None:\n", "        if not held.begun:\n"),),
        caught_by=(f"{_TEST_OUTPUTS}::test_a_public_result_is_kept_and_the_plan_is_reserved_before_it",),
    ),
    Mutant(
        name="refund_after_a_crash",
        rule=5,
        bug="A training that fails gives its reservation back, though its steps ran.",
        had_by="class of bug",
        edits=(
            Edit(
                _TRAINING,
                "    learnt = fit(chosen, session, seed=seed, verbose=verbose)\n",
                "    try:\n"
                "        learnt = fit(chosen, session, seed=seed, verbose=verbose)\n"
                "    except BaseException:\n"
                "        if ledger is not None:\n"
                "            for entry in ledger.reservations():\n"
                '                ledger.void(entry.name, reason="crashed")\n'
                "        raise\n",
            ),
        ),
        caught_by=(
            f"{_CONFORMANCE}::test_the_budget_is_reserved_before_the_first_access_and_stays_reserved[gaussian_mixture]",
        ),
    ),
    Mutant(
        name="limit_forgets_earlier_runs",
        rule=5,
        bug="A limit is held against each run alone, and not against all of them together.",
        had_by="class of bug",
        edits=(Edit(_BOOK, "for after in [Past.together([past, more])]}", "for after in [more]}"),),
        caught_by=(_RESERVED_FIRST, f"{_TEST_LEDGER}::{_VARIANTS}[as it is]"),
    ),
    Mutant(
        name="an_account_of_examples_in_their_order",
        rule=5,
        bug="An example has another account in another place of its data set.",
        had_by="this package, whose ledger knew a data set by one digest of all examples in their order",
        edits=(Edit(_IDENTITY, "digest.update(image)", "digest.update(image.tobytes() + bytes([place % 256]))"),),
        caught_by=(f"{_TEST_LEDGER}::{_VARIANTS}[reversed]", f"{_TEST_LEDGER}::{_VARIANTS}[without the first]"),
    ),
    Mutant(
        name="an_account_of_labels",
        rule=5,
        bug="Whoever labels the same images anew has another budget for them.",
        had_by="this package; class of bug of digests of files",
        edits=(
            Edit(_IDENTITY, "for images, _ in dataset.blocks():", "for images, labels in dataset.blocks():"),
            Edit(_IDENTITY, "for image in np.asc", "for label, image in zip(labels.tolist(), np.asc"),
            Edit(_IDENTITY, "contiguousarray(images):", "contiguousarray(images), strict=True):"),
            Edit(_IDENTITY, "digest.update(image)", "digest.update(image.tobytes() + bytes([label]))"),
        ),
        caught_by=(f"{_TEST_LEDGER}::{_VARIANTS}[labelled anew]",),
    ),
    Mutant(
        name="a_part_without_a_past",
        rule=5,
        bug="Where a run holds a part of what earlier runs held, that part starts with nothing spent.",
        had_by="this package, whose ledger gave every part of a data set an account of its own",
        edits=(Edit(_COHORTS, "for table in (MEMBERSHIPS, CHARGES):", "for table in (MEMBERSHIPS,):"),),
        caught_by=(f"{_TEST_LEDGER}::{_VARIANTS}[a single one]",),
    ),
    Mutant(
        name="the_average_example_pays",
        rule=5,
        bug="A run is held against the past of most of its examples, and not of the one that has paid most.",
        had_by="class of bug of accounts of data sets",
        edits=(Edit(_BOOK, "key=lambda ranked: ranked[0], reverse=True)", "key=lambda ranked: ranked[0])[:1]"),),
        caught_by=(f"{_TEST_LEDGER}::{_VARIANTS}[among others]",),
    ),
    Mutant(
        name="a_user_pays_for_one_example",
        rule=5,
        bug="What a run for examples costs a user of many of them is what it costs one example.",
        had_by="class of bug: example-level epsilons that are read as a person's",
        edits=(Edit(_BOOK, "accounting.group_event(event, most)", "accounting.group_event(event, 1)"),),
        caught_by=(f"{_TEST_LEDGER}::test_a_user_pays_for_all_of_their_examples_together[event0]",),
    ),
    Mutant(
        name="a_run_says_how_many_images_a_user_has",
        rule=5,
        bug="How many images a user has is believed to whoever starts a run: made-up users make it cheap.",
        had_by="this package",
        edits=(
            Edit(
                _BOOK,
                "return max(1, known + outside, identity.most_of_a_user())",
                "return max(1, identity.most_of_a_user())",
            ),
            Edit(_BOOK, "row.copies * sum(account.most for account in accounts))", "0 * len(accounts))"),
        ),
        caught_by=(f"{_TEST_LEDGER}::test_neither_runs_without_users_nor_made_up_users_make_it_cheaper_for_users",),
    ),
    Mutant(
        name="what_a_run_said_of_its_users_is_forgotten",
        rule=5,
        bug="What a run has cost a user of many images becomes cheaper once it has been granted.",
        had_by="this package",
        edits=(Edit(_BOOK, "return max(1, row.most, row.copies *", "return max(1, row.copies *"),),
        caught_by=(f"{_TEST_LEDGER}::test_what_a_run_has_said_of_its_users_is_not_forgotten",),
    ),
    Mutant(
        name="images_of_nobody_in_an_account_of_users",
        rule=5,
        bug="A run that does not say whose its images are brings others into an account of users, as if of nobody.",
        had_by="this package",
        edits=(
            Edit(
                "tfdpgen/privacy/ledger.py",
                "if not account.most or groups.outside(examples.cohorts, PrivacyUnit.USER).any():",
                "if not account.most:",
            ),
        ),
        caught_by=(
            f"{_TEST_LEDGER}::"
            "test_a_run_that_does_not_say_whose_its_images_are_brings_no_others_into_an_account_of_users",
        ),
    ),
    Mutant(
        name="a_joined_account_is_held_to_no_total",
        rule=5,
        bug="A run on one of two joined accounts is held to the total of that one alone.",
        had_by="this package",
        edits=(
            Edit(
                _GROUPS,
                "for account in self.accounts_of(self.reached(asked, unit), unit)",
                "for account in self.accounts_of(asked, unit)",
            ),
        ),
        caught_by=(f"{_TEST_LEDGER}::test_data_sets_that_belong_together_are_charged_together",),
    ),
    Mutant(
        name="joined_accounts_end_at_their_own_examples",
        rule=5,
        bug="What copies of an image have paid is forgotten in a further account that the image is in.",
        had_by="this package",
        edits=(
            Edit(
                _BOOK,
                "return Book(connection, groups, unit, (groups.together(cohort, unit) for cohort in mine))",
                "return Book(connection, groups, unit, (groups.together(cohort, unit) & {*mine} for cohort in mine))",
            ),
        ),
        caught_by=(f"{_TEST_LEDGER}::test_joined_accounts_reach_whatever_else_their_examples_are_in",),
    ),
    Mutant(
        name="what_has_run_is_not_confirmed",
        rule=5,
        bug="A release comes out that the ledger takes for one that may not have run, so that it can be given back.",
        had_by="this package, where the ledger was away for a moment",
        edits=(Edit("components/train.py", "        confirm(book, kept.reservation)\n", "        pass\n"),),
        caught_by=(
            "tests/components/test_train.py::"
            "test_a_training_that_the_ledger_cannot_take_down_loses_nothing_and_goes_on",
        ),
    ),
    Mutant(
        name="the_backup_goes_before_the_release_is_there",
        rule=5,
        bug="What a training has bought is lost to a crash after its end and before its outputs have their names.",
        had_by="this package",
        edits=(
            Edit(
                "components/component.py",
                "with contextlib.ExitStack() as lasting, contextlib.ExitStack() as stack:",
                "with contextlib.ExitStack() as stack, contextlib.ExitStack() as lasting:",
            ),
        ),
        caught_by=("tests/components/test_component.py::test_what_lasts_ends_when_the_outputs_have_their_names[True]",),
    ),
    Mutant(
        name="digests_of_private_examples_for_everybody",
        rule=7,
        bug="A public export holds digests of private examples, by which a guess of them can be told to be right.",
        had_by="this package",
        edits=(
            Edit(
                "pipelines/export_command.py",
                'if not (self.is_public_only and header["internal"])]',
                "if True]",
            ),
        ),
        caught_by=(
            "tests/pipelines/test_export.py::test_what_is_sent_to_everybody_holds_no_digest_of_anything_internal",
        ),
    ),
    Mutant(
        name="an_example_of_a_user_pays_for_its_presence_alone",
        rule=5,
        bug="A run for users costs an example what leaving the user out costs, though the user stays and changes.",
        had_by="class of bug",
        edits=(Edit(_BOOK, "        return accounting.ReplaceOneDpEvent(event)\n", "        return event\n"),),
        caught_by=(f"{_TEST_LEDGER}::test_an_example_of_a_user_pays_for_its_user_being_another",),
    ),
    Mutant(
        name="reads_the_account_before_the_lock",
        rule=5,
        bug="Two processes read what is left at the same time, and both take it.",
        had_by="class of bug: check, then act",
        edits=(
            Edit("tfdpgen/privacy/accounts/store.py", '"BEGIN IMMEDIATE" if is_writing else "BEGIN"', '"SELECT 1"'),
        ),
        caught_by=(
            "tests/privacy/test_ledger_races.py::test_what_racing_processes_are_granted_never_exceeds_the_total[sqlite-60-1.6]",
        ),
    ),
    Mutant(
        name="a_limit_that_was_changed_in_the_file",
        rule=5,
        bug="A ledger whose total somebody has raised in the database, and not by the ledger, is believed.",
        had_by="class of bug of records that nothing vouches for",
        edits=(
            Edit(
                "tfdpgen/privacy/accounts/history.py",
                "if name not in rows or facts is None or any(",
                "if False and any(",
            ),
        ),
        caught_by=(f"{_TEST_LEDGER}::test_what_was_changed_by_something_else_is_seen",),
    ),
    Mutant(
        name="a_claimed_block_runs_again",
        rule=5,
        bug="A resumed training repeats the steps since its last checkpoint, which an observer may have seen.",
        had_by="class of bug of trainings that resume, accounted or not",
        edits=(
            Edit(_BACKUP, '.read_text())["claimed"])', '.read_text())["done"])'),
            Edit(
                _BACKUP,
                "        if self.first < total:\n",
                "        if self.first < total and self._kept is None:\n",
            ),
        ),
        caught_by=(_RESUMED,),
    ),
    Mutant(
        name="resumed_with_other_examples",
        rule=5,
        bug="The progress of one data set goes on with the examples of another, whose ledger knows nothing of it.",
        had_by="class of bug",
        edits=(Edit(_SESSION, '"examples": name}', '"examples": ""}'),),
        caught_by=(f"{_TEST_OUTPUTS}::test_a_resumed_session_gives_what_it_gave_of_the_same_examples_alone",),
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
                "        draw = tf.cast(self._draws.assign_add(1), tf.uint32)\n        pairs =",
                '        self._traced = getattr(self, "_traced", 0) + 1\n'
                "        draw = tf.constant(self._traced, tf.uint32)\n        pairs =",
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
                _TRAINING,
                "noise = NoiseSource.insecure(seed) if insecure_reproducible else NoiseSource()",
                "noise = NoiseSource.insecure(seed)",
            ),
        ),
        caught_by=(f"{_CONFORMANCE}::test_the_seed_does_not_reach_the_noise_unless_asked_for[gaussian_mixture]",),
    ),
    Mutant(
        name="draws_of_a_fixed_seed",
        rule=6,
        bug="Which examples are sampled can be computed by anyone: there is no amplification by sampling.",
        had_by="class of bug of seeded data loaders",
        edits=(
            Edit(
                _DP_SGD,
                "rng = (noise or NoiseSource()).numpy_generator()",
                "rng = NoiseSource.insecure(0).numpy_generator()",
            ),
        ),
        caught_by=(f"{_TEST_SAMPLING}::test_draws_differ_between_runs_unless_seeded",),
    ),
    Mutant(
        name="resume_repeats_noise",
        rule=6,
        bug="A training with a backup has seeded noise, and again when it goes on: one noise hides two different sums.",
        had_by="class of bug of checkpoints that hold the state of generators",
        edits=(
            Edit(
                _SESSION,
                "        budget.check_num_examples(plan.num_examples, plan.unit)\n",
                "        budget.check_num_examples(plan.num_examples, plan.unit)\n"
                "        if backup is not None:\n"
                "            noise._draw_key = NoiseSource.insecure(0)._draw_key\n",
            ),
        ),
        caught_by=(_RESUMED,),
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
                '            "statement": self.statement.to_dict(),\n',
                '            "statement": self.statement.to_dict(),\n            "non_finite_examples": 0,\n',
            ),
        ),
        caught_by=(f"{_CONFORMANCE}::test_a_release_survives_the_disk_and_holds_nothing_else[gaussian_mixture]",),
    ),
    Mutant(
        name="key_in_the_checkpoint",
        rule=7,
        bug="A checkpoint holds the key of the noise, which takes the noise off every step.",
        had_by="class of bug of generators that are tracked like weights",
        edits=(Edit(_NOISE, "class GaussianNoise:", "class GaussianNoise(tf.Module):"),),
        caught_by=(f"{_TEST_NOISE}::test_no_checkpoint_can_hold_the_key_or_the_count_of_draws",),
    ),
    # Networks on shards.
    Mutant(
        name="shards_overlap",
        rule=3,
        bug="A shard's network also learns from examples of the next shard: one example moves two answers.",
        had_by="copies of GS-WGAN that load one shard's weights into every discriminator; PATE-GAN, audit of 2024",
        edits=(
            Edit(
                _ENSEMBLE,
                "        chosen = tf.gather(order, starts[group] + places)\n",
                "        chosen = tf.gather(order, (starts[group] + 2 * places) % tf.size(order, tf.int64))\n",
            ),
        ),
        caught_by=(
            f"{_TEST_ENSEMBLE}::test_one_example_moves_the_answer_of_its_shard_alone",
            f"{_REPLAY}[gs_wgan]",
        ),
    ),
    Mutant(
        name="shards_share_a_network",
        rule=3,
        bug="A shard's network goes on from the weights of the shard before it.",
        had_by="class of bug of loops that reuse a network",
        edits=(
            Edit(
                _ENSEMBLE, "[rows.sparse_read(group) for rows in stacked]", "[rows.sparse_read(0) for rows in stacked]"
            ),
        ),
        caught_by=(f"{_TEST_ENSEMBLE}::test_one_example_moves_the_answer_of_its_shard_alone",),
    ),
    Mutant(
        name="one_draw_accounted_for_a_batch",
        rule=1,
        bug="Gradients are clipped fake by fake and accounted as one: a step releases four times the clip.",
        had_by="GS-WGAN's code: 32 gradients of one discriminator a step, of which one is accounted",
        edits=(
            Edit(
                _GRADIENT,
                "        return clipped(answer, self.clip_norm)\n",
                "        return clipped(answer, 4 * self.clip_norm)\n",
            ),
        ),
        caught_by=(f"{_TEST_ENSEMBLE}::test_answers_are_bounded_whatever_networks_say",),
    ),
    Mutant(
        name="a_critic_that_comes_or_goes",
        rule=1,
        bug="A step is accounted as if one example added a critic or removed it, where it turns one into another.",
        had_by="GS-WGAN's accounting by an epsilon of DP-SGD; class of bug of sampling shards",
        edits=(
            Edit(
                _GRADIENT,
                "        return ReplaceOneDpEvent(\n"
                "            poisson_gaussian_event(self.sampling_probability, calibrated(self.noise_multiplier), "
                "self.steps)\n        )\n",
                "        return poisson_gaussian_event(self.sampling_probability, calibrated(self.noise_multiplier), "
                "self.steps)\n",
            ),
        ),
        caught_by=(f"{_TEST_ENSEMBLE}::test_the_event_is_of_replaced_critics",),
    ),
    Mutant(
        name="half_the_noise_of_votes",
        rule=1,
        bug="The noise on votes has half of its standard deviation.",
        had_by="class of bug",
        edits=(
            Edit(
                _VOTES,
                "        return calibrated(self.noise_multiplier) * self.sensitivity\n",
                "        return calibrated(self.noise_multiplier) * self.sensitivity / 2\n",
            ),
        ),
        caught_by=(f"{_TEST_VOTES}::test_the_noise_is_that_of_the_plan",),
    ),
    Mutant(
        name="noise_of_steps_from_a_seed",
        rule=6,
        bug="The noise on what groups answer comes from a fixed seed: who has the program subtracts it.",
        had_by="class of bug of experiments that are made repeatable",
        edits=(
            Edit(
                _ENSEMBLE,
                "    samples, normals = noise.numpy_generator(), noise.numpy_generator()\n",
                "    samples, normals = noise.numpy_generator(), np.random.default_rng(0)\n",
            ),
        ),
        caught_by=(
            f"{_TEST_VOTES}::test_noise_follows_no_seed",
            f"{_TEST_ENSEMBLE}::test_noise_follows_no_seed",
        ),
    ),
    Mutant(
        name="teachers_draw_from_a_seed",
        rule=6,
        bug="Which of its examples a teacher votes for comes from a fixed seed.",
        had_by="class of bug of experiments that are made repeatable",
        edits=(
            Edit(
                "tfdpgen/privacy/session.py",
                "            rng = held.noise.numpy_generator()\n\n            def counts",
                "            rng = np.random.default_rng(0)\n\n            def counts",
            ),
        ),
        caught_by=(f"{_TEST_VOTES}::test_whom_teachers_draw_follows_no_seed",),
    ),
    Mutant(
        name="one_query_accounted_for_all",
        rule=1,
        bug="The noise of a step is that of one query, and all of its queries are answered.",
        had_by="PATE-GAN implementations, audit of Ganev et al. 2024 (arXiv 2406.13985)",
        edits=(Edit(_VOTES, "        return math.sqrt(2 * self.queries)\n", "        return math.sqrt(2)\n"),),
        caught_by=(f"{_TEST_VOTES}::test_the_sensitivity_is_reached",),
    ),
    Mutant(
        name="sample_guessed_by_its_digest",
        rule=2,
        bug="A message tells a site's sampled users as they are: its length and its digest say who they are.",
        had_by="class of bug of stores that address secrets by their content",
        edits=(
            Edit(
                "tfdpgen/federation/rounds.py",
                "    is_sampled[users] = 1\n"
                "    return np.concatenate([is_sampled, np.frombuffer(os.urandom(_RANDOM_BYTES), np.uint8)])\n",
                "    is_sampled[users] = 1\n"
                "    return np.concatenate([is_sampled, np.zeros(_RANDOM_BYTES, np.uint8)])\n",
            ),
        ),
        caught_by=(
            "tests/federation/test_sites.py::"
            "test_a_message_hides_who_is_sampled_from_whoever_sees_its_length_or_guesses_its_digest",
        ),
    ),
    Mutant(
        name="projections_rounded_by_place",
        rule=3,
        bug="Projections are rounded as products of matrices happen to be: one example turns other teachers' votes.",
        had_by="class of bug of thresholds on floating-point sums",
        edits=(
            Edit(_VOTES, "        features = _on_grid(features, _LARGEST, _FEATURE_BITS)\n", ""),
            Edit(_VOTES, "        directions = _on_grid(directions, 1.0, _DIRECTION_BITS)\n", ""),
        ),
        caught_by=(f"{_TEST_VOTES}::test_no_rounding_turns_the_vote_of_another_teacher",),
    ),
    Mutant(
        name="teachers_of_all_classes",
        rule=3,
        bug="Teachers vote on the queries of all classes: one example moves ten times as many votes.",
        had_by="class of bug of parallel composition over parts that are not disjoint",
        edits=(
            Edit(
                _VOTES,
                "            members = np.flatnonzero(labels == label)\n",
                "            members = np.arange(len(labels))\n",
            ),
        ),
        caught_by=(
            f"{_TEST_VOTES}::test_one_example_moves_one_vote_of_each_query_about_its_class_alone",
            f"{_REPLAY}[pate_gan]",
        ),
    ),
    Mutant(
        name="teachers_overlap",
        rule=3,
        bug="A teacher also votes for examples of the next one's shard.",
        had_by="PATE-GAN implementations, audit of Ganev et al. 2024 (arXiv 2406.13985)",
        edits=(
            Edit(
                _VOTES,
                "np.floor(draws * sizes[teachers, None]).astype(np.int64)\n",
                "np.floor(2 * draws * sizes[teachers, None]).astype(np.int64)\n"
                "                chosen = chosen % max(1, len(members))\n",
            ),
        ),
        caught_by=(f"{_TEST_VOTES}::test_one_example_moves_one_vote_of_each_query_about_its_class_alone",),
    ),
    Mutant(
        name="draws_by_the_teachers_that_are_there",
        rule=6,
        bug="What a teacher draws depends on how many teachers before it have examples.",
        had_by="class of bug of random numbers that are drawn by place",
        edits=(
            Edit(
                _VOTES,
                "rng.random((self.num_teachers, len(thresholds[label, some])))[teachers]\n",
                "rng.random((len(teachers), len(thresholds[label, some])))\n",
            ),
        ),
        caught_by=(f"{_TEST_VOTES}::test_one_example_moves_one_vote_of_each_query_about_its_class_alone",),
    ),
    Mutant(
        name="critics_left_where_methods_see_them",
        rule=4,
        bug="The last shard's network stays in the model that the method's loss was given.",
        had_by="class of bug of models that remember what they were last used for",
        edits=(
            Edit(
                _ENSEMBLE,
                "                variable.assign(value)  # nothing private stays in what the functions have seen\n",
                "                value.shape.as_list()\n",
            ),
        ),
        caught_by=(f"{_TEST_ENSEMBLE}::test_nothing_of_the_networks_is_left_where_a_method_can_see_it",),
    ),
    Mutant(
        name="queries_from_private_examples",
        rule=4,
        bug="Shards are asked about private examples in place of public images: one example moves every answer.",
        had_by="class of bug of PATE where students query with the training data",
        edits=(
            Edit(
                _ENSEMBLE,
                "            answer = answer_fn(clone, *public)\n",
                "            places = tf.range(public[0].shape[0]) % tf.shape(features)[0]\n"
                "            answer = answer_fn(clone, tf.gather(features, places), *public[1:])\n",
            ),
        ),
        caught_by=(
            f"{_TEST_ENSEMBLE}::test_one_example_moves_the_answer_of_its_shard_alone",
            f"{_REPLAY}[gs_wgan]",
        ),
    ),
    Mutant(
        name="discriminator_released",
        rule=7,
        bug="The network of a shard is handed out beside the generator.",
        had_by="releases of GS-WGAN and PATE-GAN that save all networks of a run",
        edits=(
            Edit(
                _ENSEMBLE,
                "    clone = tf.keras.models.clone_model(network)\n    clone.set_weights",
                "    clone = network\n    clone.set_weights",
            ),
            Edit(
                _ENSEMBLE,
                "                variable.assign(value)  # nothing private stays in what the functions have seen\n",
                "                value.shape.as_list()\n",
            ),
            Edit(
                "tfdpgen/methods/gs_wgan.py",
                "        return Fitted(training.finished(), {})\n",
                '        return Fitted(training.finished(), {"critic": critic})\n',
            ),
        ),
        caught_by=(
            f"{_CONFORMANCE}::test_with_the_outputs_of_its_mechanisms_given_the_examples_change_nothing[gs_wgan]",
        ),
    ),
    Mutant(
        name="critics_sampled_in_a_fixed_number",
        rule=2,
        bug="Every step samples the same number of critics, and is accounted as a Poisson sample.",
        had_by="class of bug; what DP-SGD implementations do with shuffled batches",
        edits=(
            Edit(
                _MECHANISM,
                "            yield np.flatnonzero(rng.random(self.num_groups) < self.sampling_probability)\n",
                "            most = round(self.num_groups * self.sampling_probability)\n"
                "            yield np.sort(rng.permutation(self.num_groups)[:most])\n",
            ),
        ),
        caught_by=(f"{_TEST_ENSEMBLE}::test_critics_are_sampled_independently",),
    ),
    Mutant(
        name="user_clipped_image_by_image",
        rule=3,
        bug="A user's update is bounded by one clip for each of a few images: a user moves a round by several clips.",
        had_by="class of bug of user-level privacy by DP-SGD on users' images",
        edits=(
            Edit(
                _FEDERATED,
                "        return clipped(answer, self.clip_norm)\n",
                "        return clipped(answer, 3 * self.clip_norm)\n",
            ),
        ),
        caught_by=(
            f"{_TEST_FEDERATION}::test_a_whole_user_moves_a_round_by_one_clip_and_no_other_user",
            f"{_REPLAY}[fedavg_gan]",
        ),
    ),
    Mutant(
        name="noise_forgotten_at_the_server",
        rule=1,
        bug="The sum of updates leaves without noise, which users were expected to have added.",
        had_by="class of bug of federations that move the noise from the server to clients",
        edits=(
            Edit(
                _ENSEMBLE,
                "            noised = total + normals.normal(scale=mechanism.stddev, size=total.shape)\n",
                "            noised = total\n",
            ),
        ),
        caught_by=(
            f"{_TEST_FEDERATION}::test_noise_is_added_once_and_is_that_of_the_plan",
            f"{_TEST_ENSEMBLE}::test_the_noise_is_that_of_the_plan",
        ),
    ),
    Mutant(
        name="noise_of_the_sites",
        rule=1,
        bug="Sites add noise, each as much as it finds right, and the server adds none.",
        had_by="class of bug of federations that move the noise from the server to clients",
        edits=(
            Edit(
                _SITE,
                "        return sum_of(chosen, tensors)\n",
                "        return sum_of(chosen, tensors) + np.random.normal(scale=0.1, size=task.mechanism.size)\n",
            ),
            Edit(
                _ENSEMBLE,
                "            noised = total + normals.normal(scale=mechanism.stddev, size=total.shape)\n",
                "            noised = total\n",
            ),
        ),
        caught_by=(
            f"{_TEST_SITES}::test_what_a_site_sends_is_no_noise_and_its_draws_are_its_own",
            f"{_TEST_FEDERATION}::test_noise_is_added_once_and_is_that_of_the_plan",
        ),
    ),
    Mutant(
        name="site_clipped_in_place_of_its_users",
        rule=3,
        bug="A site's sum is clipped, and no user's update: a user turns it, and moves a round by two clips.",
        had_by="class of bug of wrappers that clip what a client sends, where a client is no user",
        edits=(
            Edit(
                _FEDERATED,
                "        return clipped(answer, self.clip_norm)\n",
                "        return clipped(answer, 1e6 * self.clip_norm)\n",
            ),
            Edit(
                _SITE,
                "        return sum_of(chosen, tensors)\n",
                "        total, norm = sum_of(chosen, tensors), task.mechanism.clip_norm\n"
                "        return total * (norm / max(float(np.linalg.norm(total)), norm))\n",
            ),
        ),
        caught_by=(f"{_TEST_SITES}::test_a_user_is_clipped_as_a_whole_and_neither_a_site_nor_an_image",),
    ),
    Mutant(
        name="sums_of_sites_of_any_length",
        rule=3,
        bug="The server takes sums that no number of clipped updates can have.",
        had_by="class of bug of servers that believe what clients say of themselves",
        edits=(
            Edit(_ROUNDS, "> most * (1 + _ROUNDING)", "> math.inf"),
            Edit(_ROUNDS, "import dataclasses\n", "import dataclasses\nimport math\n"),
        ),
        caught_by=(f"{_TEST_SITES}::test_a_round_is_used_whole_or_not_at_all",),
    ),
    Mutant(
        name="what_came_of_a_lost_round_is_used",
        rule=2,
        bug="Where a site is lost, the sum of the others is used: who was in the sample depends on who came through.",
        had_by="class of bug of aggregation that goes on with the replies that there are",
        edits=(Edit(_ROUNDS, "    if failed:\n", "    if len(failed) == len(asked):\n"),),
        caught_by=(f"{_TEST_SITES}::test_a_round_is_used_whole_or_not_at_all",),
    ),
    Mutant(
        name="lost_round_is_asked_again",
        rule=5,
        bug="A round that was lost is asked for again with the same users, and paid for once.",
        had_by="class of bug of retries",
        edits=(
            Edit(
                _ENSEMBLE,
                "            total = without_values(sum_of, sampled, asked)\n",
                "            total = without_values(sum_of, sampled, asked)\n"
                "            total = without_values(sum_of, sampled, asked) if total is None else total\n",
            ),
        ),
        caught_by=(f"{_TEST_REMOTE}::test_a_lost_round_is_charged_and_nothing_of_it_is_used",),
    ),
    Mutant(
        name="users_go_on_from_each_other",
        rule=3,
        bug="A user trains the copy that the user before has left: one user moves what later ones send.",
        had_by="class of bug of simulations that reuse a model",
        edits=(
            Edit(
                _ENSEMBLE,
                "            variable.assign(value)\n        steps = tf.where",
                "            variable.assign(value if kept or 'iter' in variable.name else variable)\n"
                "        steps = tf.where",
            ),
        ),
        caught_by=(f"{_TEST_FEDERATION}::test_users_start_from_the_public_network_as_it_is",),
    ),
)
