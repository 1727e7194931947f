"""Every layer rule, in every setting that it says it covers, equals the jacobian oracle."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.privacy.oracle import assert_equals_oracle, batch_for
from tfdpgen.privacy.clipping import PerExampleTape, check_network, clipped_gradient_sum, register_activation
from tfdpgen.privacy.clipping.registry import rule_for

keras = tf.keras
layers = tf.keras.layers


def _ids(settings: list) -> list[str]:
    return [", ".join(f"{name}={value}" for name, value in setting.items()) or "plain" for setting in settings]


def _alone(layer: layers.Layer, shape: tuple[int, ...]) -> keras.Model:
    """The layer between two nonlinearities, so that its input and its g are not constant."""
    return keras.Sequential([keras.Input(shape), layers.Activation("softplus"), layer, layers.Activation("tanh")])


_CONV_2D = [
    {},
    {"strides": 2},
    {"strides": (2, 1), "padding": "same"},
    {"dilation_rate": 2},
    {"dilation_rate": (1, 2), "padding": "same"},
    {"use_bias": False, "activation": "relu"},
]


@pytest.mark.parametrize("settings", _CONV_2D, ids=_ids(_CONV_2D))
@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d(settings: dict, groups: int) -> None:
    network = _alone(layers.Conv2D(6, (3, 2), groups=groups, **settings), (7, 6, 4))
    assert_equals_oracle(network, batch_for(network, 0), 0.5)


_CONV_1D = [
    {},
    {"strides": 2, "padding": "same"},
    {"dilation_rate": 2, "padding": "same"},
    {"padding": "causal"},
    {"padding": "causal", "dilation_rate": 3, "use_bias": False},
]


@pytest.mark.parametrize("settings", _CONV_1D, ids=_ids(_CONV_1D))
@pytest.mark.parametrize("groups", [1, 2])
def test_conv1d(settings: dict, groups: int) -> None:
    network = _alone(layers.Conv1D(4, 3, groups=groups, **settings), (11, 2))
    assert_equals_oracle(network, batch_for(network, 1), 0.5)


_CONV_3D = [{}, {"strides": (2, 1, 2)}, {"padding": "same"}, {"use_bias": False, "strides": 2, "padding": "same"}]


@pytest.mark.parametrize("settings", _CONV_3D, ids=_ids(_CONV_3D))
def test_conv3d(settings: dict) -> None:
    network = _alone(layers.Conv3D(3, (2, 3, 2), **settings), (4, 5, 4, 2))
    assert_equals_oracle(network, batch_for(network, 2), 0.5)


_TRANSPOSED = [
    {},
    {"strides": 2},
    {"strides": (2, 1), "padding": "same"},
    {"strides": 3, "padding": "same", "output_padding": 1},
    {"strides": 2, "output_padding": 1},
    {"dilation_rate": 2, "padding": "same"},
    {"dilation_rate": 2},
    {"use_bias": False, "activation": "sigmoid"},
]


@pytest.mark.parametrize("settings", _TRANSPOSED, ids=_ids(_TRANSPOSED))
def test_conv2d_transpose(settings: dict) -> None:
    network = _alone(layers.Conv2DTranspose(3, 3, **settings), (5, 4, 4))
    assert_equals_oracle(network, batch_for(network, 3), 0.5)


_DEPTHWISE = [
    {},
    {"strides": 2, "padding": "same"},
    {"dilation_rate": 2},
    {"depth_multiplier": 2, "padding": "same", "use_bias": False},
    {"depth_multiplier": 3, "strides": 2, "activation": "tanh"},
]


@pytest.mark.parametrize("settings", _DEPTHWISE, ids=_ids(_DEPTHWISE))
def test_depthwise_conv2d(settings: dict) -> None:
    network = _alone(layers.DepthwiseConv2D((3, 2), **settings), (7, 7, 3))
    assert_equals_oracle(network, batch_for(network, 4), 0.5)


@pytest.mark.parametrize("settings", _DEPTHWISE, ids=_ids(_DEPTHWISE))
def test_separable_conv2d(settings: dict) -> None:
    network = _alone(layers.SeparableConv2D(5, (3, 2), **settings), (7, 7, 3))
    assert_equals_oracle(network, batch_for(network, 5), 0.5)


def _channels_first_pairs() -> list:
    return [
        (layers.Conv1D, (3,), {"groups": 2}, (6, 2)),
        (layers.Conv2D, (3, 2), {"strides": 2, "padding": "same"}, (6, 5, 2)),
        (layers.Conv3D, (2, 3, 2), {}, (4, 5, 4, 2)),
        (layers.Conv2DTranspose, (3, 3), {"strides": 2}, (4, 4, 2)),
        (layers.DepthwiseConv2D, (3, 2), {"depth_multiplier": 2}, (5, 5, 2)),
        (layers.SeparableConv2D, (3, 2), {"padding": "same"}, (5, 5, 2)),
    ]


@pytest.mark.parametrize(
    ("kind", "kernel", "settings", "shape"),
    _channels_first_pairs(),
    ids=[p[0].__name__ for p in _channels_first_pairs()],
)
def test_channels_first_equals_channels_last(kind: type, kernel: tuple, settings: dict, shape: tuple) -> None:
    """TensorFlow computes channels_first on GPUs only, so the rules are compared on given inputs and gradients."""
    arguments = settings if kind is layers.DepthwiseConv2D else {"filters": 4, **settings}
    last = kind(kernel_size=kernel, data_format="channels_last", **arguments)
    first = kind(kernel_size=kernel, data_format="channels_first", **arguments)
    a = tf.random.stateless_normal([3, *shape], [0, 0])
    g = tf.random.stateless_normal(last(a).shape, [1, 0])
    first.build([None, shape[-1], *shape[:-1]])
    first.set_weights(last.get_weights())
    to_first = [0, len(shape), *range(1, len(shape))]
    expected = rule_for(last).gradients(last, a, g)
    actual = rule_for(first).gradients(first, tf.transpose(a, to_first), tf.transpose(g, to_first))
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours.squared_norms(), theirs.squared_norms(), rtol=1e-5)
        np.testing.assert_allclose(
            ours.weighted_sum(tf.ones([3])), theirs.weighted_sum(tf.ones([3])), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
def test_dense_on_inputs_of_any_rank(shape: tuple) -> None:
    network = _alone(layers.Dense(6), shape)
    assert_equals_oracle(network, batch_for(network, 6), 0.5)


@pytest.mark.parametrize("shape", [(), (6,), (2, 5)])
def test_embedding_adds_up_a_row_that_comes_up_twice(shape: tuple) -> None:
    inputs = keras.Input(shape, dtype="int32")
    network = keras.Model(inputs, layers.Dense(2)(layers.Embedding(4, 3)(inputs)))
    indices = np.random.default_rng(0).integers(0, 4, size=(5, *shape))  # more positions than rows
    assert_equals_oracle(network, tf.constant(indices, tf.int32), 0.02)


@pytest.mark.parametrize(
    "settings",
    [{}, {"axis": [1, 2]}, {"axis": 1, "center": False}, {"scale": False}, {"axis": [1, 2, 3], "epsilon": 0.1}],
)
def test_layer_normalization(settings: dict) -> None:
    network = _alone(layers.LayerNormalization(**settings), (3, 4, 2))
    assert_equals_oracle(network, batch_for(network, 7), 0.5)


@pytest.mark.parametrize(
    "settings",
    [{"groups": 2}, {"groups": -1}, {"groups": 1, "scale": False}, {"groups": 2, "axis": 1, "center": False}],
)
def test_group_normalization(settings: dict) -> None:
    network = _alone(layers.GroupNormalization(**settings), (4, 3, 6))
    assert_equals_oracle(network, batch_for(network, 8), 0.5)


@pytest.mark.parametrize("shared_axes", [None, [1], [1, 2]])
def test_prelu(shared_axes: list | None) -> None:
    layer = layers.PReLU(shared_axes=shared_axes, alpha_initializer="random_normal")
    network = keras.Sequential([keras.Input((4, 3, 2)), layer, layers.Dense(2)])
    assert_equals_oracle(network, batch_for(network, 9), 0.5)


@pytest.mark.parametrize(
    ("equation", "output_shape", "bias_axes"),
    [
        ("ab,bc->ac", 5, "c"),
        ("abc,cd->abd", (None, 5), "d"),
        ("abc,cde->abde", (None, 2, 3), "de"),
        ("abc,cde->abde", (None, 2, 3), "e"),
        ("abc,bcd->abd", (3, 5), "bd"),
        ("abc,bcd->ad", 5, None),
        ("abc,bd->adc", (5, 4), "d"),
        ("...x,xy->...y", 5, "y"),
        ("abc,bc->abc", (3, 4), None),
        ("abc,cd->ad", 5, "d"),
    ],
)
def test_einsum_dense(equation: str, output_shape: object, bias_axes: str | None) -> None:
    shape = (4,) if equation.startswith("ab,") else (3, 4)
    network = _alone(layers.EinsumDense(equation, output_shape=output_shape, bias_axes=bias_axes), shape)
    assert_equals_oracle(network, batch_for(network, 10), 0.5)


@pytest.mark.parametrize("attention_axes", [None, (2,)])
def test_multi_head_attention(attention_axes: tuple | None) -> None:
    inputs = keras.Input((4, 3, 5))
    attended = layers.MultiHeadAttention(2, 3, value_dim=2, attention_axes=attention_axes)(inputs, inputs)
    network = keras.Model(inputs, layers.LayerNormalization()(layers.Add()([inputs, attended])))
    assert_equals_oracle(network, batch_for(network, 11), 0.5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(4, "tanh"), (3, 4)),
        (layers.Conv1D(2, 3, padding="same"), (5, 2)),
        (layers.Conv2D(2, 3, padding="same"), (4, 4, 2)),
        (layers.Conv3D(2, 2, padding="same"), (3, 3, 3, 2)),
        (layers.Conv2DTranspose(2, 3, padding="same"), (4, 4, 2)),
        (layers.DepthwiseConv2D(3, padding="same"), (4, 4, 2)),
        (layers.SeparableConv2D(2, 3, padding="same"), (4, 4, 2)),
        (layers.LayerNormalization(), (3, 4)),
        (layers.GroupNormalization(2), (3, 4)),
        (layers.PReLU(alpha_initializer="ones"), (3, 4)),
        (layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d"), (3, 4)),
    ],
)
def test_a_layer_that_is_called_twice_counts_with_the_sum_of_its_calls(layer: layers.Layer, shape: tuple) -> None:
    inputs = keras.Input(shape)
    network = keras.Model(inputs, layer(layers.Activation("tanh")(layer(inputs))))
    assert_equals_oracle(network, batch_for(network, 12), 0.1)


def test_an_embedding_that_is_called_twice_counts_with_the_sum_of_its_calls() -> None:
    inputs, shared = keras.Input((4,), dtype="int32"), layers.Embedding(3, 2)
    network = keras.Model(inputs, layers.Concatenate()([shared(inputs[:, :2]), shared(2 - inputs[:, 1:3])]))
    indices = np.random.default_rng(0).integers(0, 3, size=(5, 4))
    layer_of_slices = {type(layer) for layer in network.layers} - {layers.InputLayer, layers.Embedding}
    assert layer_of_slices  # slices of inputs are layers of their own, which nothing is known of
    with pytest.raises(ValueError, match="not known to treat each example alone"):
        check_network(network)
    parts = [keras.Input((2,), dtype="int32"), keras.Input((2,), dtype="int32")]
    network = keras.Model(parts, layers.Concatenate()([shared(part) for part in parts]))

    def losses(network: keras.Model, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(network([values[:, :2], values[:, 2:]]) - 0.3), axis=[1, 2])

    assert_equals_oracle(network, tf.constant(indices), 0.02, losses_fn=losses)


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(axis=0),
        layers.LayerNormalization(axis=[0, 1], center=False, scale=False),
        layers.Softmax(axis=0),
        layers.Softmax(axis=-3),
        layers.Concatenate(axis=0),
        layers.MultiHeadAttention(2, 2, attention_axes=(0, 1)),
        layers.BatchNormalization(),
        tf.keras.layers.experimental.SyncBatchNormalization(),
    ],
    ids=lambda layer: layer.name,
)
@pytest.mark.parametrize("needs_rules", [True, False])
def test_layers_that_compute_across_examples_are_refused(layer: layers.Layer, needs_rules: bool) -> None:
    inputs = keras.Input((3, 4), batch_size=2)
    if isinstance(layer, layers.Concatenate):
        outputs = layer([inputs, inputs])
    else:
        outputs = layer(inputs, inputs) if isinstance(layer, layers.MultiHeadAttention) else layer(inputs)
    with pytest.raises(ValueError, match=f"'{layer.name}'.*mixes the examples"):
        check_network(keras.Model(inputs, outputs), needs_rules=needs_rules)


class _Centred(keras.Model):
    """A model of stock layers whose own `call` subtracts the mean of the batch."""

    def __init__(self) -> None:
        super().__init__(name="centred")
        self.dense = layers.Dense(2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(inputs - tf.reduce_mean(inputs, axis=0))


class _CentredSequential(keras.Sequential):
    def call(self, inputs: tf.Tensor, **arguments: object) -> tf.Tensor:
        return super().call(inputs - tf.reduce_mean(inputs, axis=0), **arguments)


def _centred(values: tf.Tensor) -> tf.Tensor:
    return values - tf.reduce_mean(values, axis=0)


def _within(model: keras.Model) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Activation("tanh")(model(inputs)))


@pytest.mark.parametrize("needs_rules", [True, False])
@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: _Centred(), "'centred'.*should be functional"),
        (lambda: _within(_Centred()), "'centred'.*should be functional"),
        (lambda: _CentredSequential([layers.Dense(2)]), "_CentredSequential.*should be functional"),
        (lambda: keras.Sequential([layers.Dense(2, activation=_centred)]), "activation '_centred'"),
        (lambda: keras.Sequential([layers.Dense(2), layers.Activation(_centred)]), "activation '_centred'"),
        (lambda: keras.Sequential([layers.Dense(2, activation=lambda x: x)]), "activation '<lambda>'"),
        (lambda: _within(keras.Sequential([layers.Dense(2, _centred)])), "activation '_centred'"),
        (lambda: keras.Sequential([layers.Dense(2, activation=layers.Softmax(axis=0))]), "mixes|activation"),
        (lambda: keras.Sequential([layers.Dense(2, activation=layers.BatchNormalization())]), "mixes|activation"),
        (lambda: keras.Sequential([layers.Dense(2), layers.Dropout(0.5)]), "Dropout.*noise.examples"),
        (lambda: keras.Sequential([layers.Dense(2), layers.GaussianNoise(0.5)]), "GaussianNoise.*noise.examples"),
    ],
)
def test_what_no_list_of_layers_describes_is_refused(
    network: Callable[[], keras.Model], said: str, needs_rules: bool
) -> None:
    built = network()
    built(tf.zeros([2, 4]))
    with pytest.raises(ValueError, match=said):
        check_network(built, needs_rules=needs_rules)


def _replaced(network: keras.Model, thing: keras.layers.Layer) -> keras.Model:
    """The network, in which somebody has replaced the `call` of one layer, or of the whole."""
    call = thing.call
    thing.call = lambda values, *_, **__: _centred(call(values))
    return network


def _plain() -> keras.Sequential:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.ReLU(), layers.Dense(2)])


def _of(*inner: keras.layers.Layer, shape: tuple = (4,)) -> keras.Sequential:
    return keras.Sequential([keras.Input(shape), layers.Dense(4), *inner, layers.Dense(2)])


def _of_rank_1(layer: keras.layers.Layer) -> keras.Model:
    inputs, others = keras.Input(()), keras.Input((4,))
    return keras.Model([inputs, others], layers.Dense(2)(layers.Multiply()([others, layer(inputs)])))


def _with_constant(layer: keras.layers.Layer, shape: tuple[int, ...]) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(layer([layers.Dense(4)(inputs), tf.ones(shape)])))


def _of_several_tensors() -> keras.Sequential:
    network = keras.Sequential([layers.Concatenate(), layers.Softmax(axis=-2), layers.Dense(2)])
    network([tf.ones([3, 2]), tf.ones([3, 2])])
    return network


def _of_another_rank() -> keras.Sequential:
    network = keras.Sequential([layers.Dense(3), layers.Softmax(axis=-2), layers.Dense(2)])
    network(tf.ones([3, 2, 4]))  # in which -2 is not the axis of the examples, as it is in a call with [3, 4]
    return network


def _einsum(equation: str, trainable: bool) -> keras.Model:
    inputs = keras.Input((4,), batch_size=6)
    return keras.Model(inputs, layers.Dense(2)(layers.EinsumDense(equation, (4,), trainable=trainable)(inputs)))


@pytest.mark.parametrize("needs_rules", [True, False])
@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: _of(layers.Softmax(axis=np.int64(0))), "mixes"),
        (lambda: _of(layers.Softmax(axis=np.int32(-2))), "mixes"),
        (lambda: _of(layers.Dense(4, activation=layers.Softmax(axis=-2))), "activation"),
        (lambda: _of(layers.Activation(layers.Softmax(axis=-2))), "activation"),
        (lambda: _of(layers.Activation(layers.Masking())), "activation"),
        (lambda: _of_rank_1(layers.Masking(5.0)), "mixes"),
        (lambda: _of_rank_1(layers.CategoryEncoding(4, output_mode="count")), "mixes"),
        (lambda: _of(layers.Rescaling(np.ones([6, 1]))), "mixes"),
        (lambda: _with_constant(layers.Add(), (6, 4)), "mixes"),
        (lambda: _einsum("ab,ca->cb", trainable=True), "mixes"),
        (lambda: _einsum("ab,ca->cb", trainable=False), "mixes"),
        (_of_several_tensors, "shapes of its inputs"),
        (_of_another_rank, "mixes"),
        (lambda: _replaced(network := _plain(), network), "`call` replaced"),
        (lambda: _replaced(network := _plain(), network.layers[1]), "`call` replaced"),
    ],
)
def test_examples_that_mix_by_a_setting_or_by_a_call_are_refused(
    network: Callable[[], keras.Model], said: str, needs_rules: bool
) -> None:
    with pytest.raises(ValueError, match=said):
        check_network(network(), needs_rules=needs_rules)


@pytest.mark.parametrize(
    "network",
    [
        lambda: _of(layers.Rescaling(np.arange(1.0, 5.0))),
        lambda: _with_constant(layers.Add(), (1, 4)),
        lambda: _of(layers.EinsumDense("...x,xy->...y", 3), shape=(3, 4)),
        lambda: _of(layers.Softmax(axis=-2), shape=(3, 4)),
    ],
)
def test_what_only_looks_like_mixing_is_not_refused(network: Callable[[], keras.Model]) -> None:
    built = network()
    check_network(built)
    inputs = batch_for(built, 0)
    np.testing.assert_allclose(built(inputs)[1:], built(inputs[1:]), rtol=1e-5)


class _OwnDense(layers.Dense):
    """A layer with weights whose own `call` subtracts the mean of the batch."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _centred(super().call(inputs))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: _OwnDense(3), "not known to treat each example alone"),
        (lambda: layers.LSTM(3, time_major=True, return_sequences=True), "mixes"),
        (lambda: layers.LSTM(3, stateful=True), "mixes"),
        (lambda: layers.LSTM(3, dropout=0.5), "draws random numbers"),
        (lambda: layers.GRU(3, recurrent_dropout=0.5), "draws random numbers"),
        (lambda: layers.Bidirectional(layers.LSTM(3, dropout=0.5)), "draws random numbers"),
    ],
)
def test_the_jacobian_path_refuses_layers_with_weights_that_mix_or_draw(
    layer: Callable[[], layers.Layer], said: str
) -> None:
    inputs = keras.Input((2, 4), batch_size=3)
    network = keras.Model(inputs, layer()(inputs))
    with pytest.raises(ValueError, match=said):
        check_network(network, needs_rules=False)
    plain = keras.Model(inputs, layers.Bidirectional(layers.LSTM(3))(inputs))
    check_network(plain, needs_rules=False)


@pytest.mark.parametrize("activation", ["relu", "swish", "softmax", tf.nn.leaky_relu, layers.LeakyReLU(), None])
def test_known_activations_keep_examples_apart(activation: object) -> None:
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=activation)])
    assert_equals_oracle(network, batch_for(network, 0), 0.5)


def test_an_activation_of_ones_own_can_be_declared() -> None:
    def cubed(values: tf.Tensor) -> tf.Tensor:
        return values**3

    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=cubed)])
    with pytest.raises(ValueError, match="register_activation"):
        check_network(network)
    register_activation(cubed)
    check_network(network)


def test_a_layer_shared_by_two_networks_counts_once() -> None:
    shared, inputs = layers.Dense(3), keras.Input((3,))
    networks = [keras.Model(inputs, shared(inputs)), keras.Model(inputs, layers.Activation("tanh")(shared(inputs)))]
    images = batch_for(networks[0], 0)
    with PerExampleTape(*networks) as tape:
        losses = tf.reduce_sum(tf.square(networks[1](networks[0](images))), axis=1)
    two = clipped_gradient_sum(tape, losses, shared.trainable_weights, 0.1)
    network = keras.Model(inputs, layers.Activation("tanh")(shared(shared(inputs))))
    with PerExampleTape(network) as tape:
        losses = tf.reduce_sum(tf.square(network(images)), axis=1)
    one = clipped_gradient_sum(tape, losses, shared.trainable_weights, 0.1)
    np.testing.assert_allclose(two.norms, one.norms, rtol=1e-5)
    for ours, theirs in zip(two.sums, one.sums, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_weights_shared_by_two_layers_are_refused() -> None:
    first, second = layers.Dense(3, use_bias=False), layers.Dense(3, use_bias=False)
    inputs = keras.Input((3,))
    network = keras.Model(inputs, second(first(inputs)))
    second.kernel = first.kernel
    second._trainable_weights = [first.kernel]
    with pytest.raises(ValueError, match="shares the weight"):
        check_network(network)


def test_a_rule_of_ones_own_as_the_documentation_shows_it() -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs" / "dp_sgd.md").read_text()
    (example,) = [text for text in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "LayerRule" in text]
    names = {"tf": tf}
    exec(example, names)
    network = _alone(names["Scale"](), (3, 4))
    network.layers[1].scale.assign(tf.random.stateless_normal([4], [0, 0]))
    assert_equals_oracle(network, batch_for(network, 0), 0.3)
