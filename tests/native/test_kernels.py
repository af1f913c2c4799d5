import platform
import warnings
from importlib import import_module

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import native
from native import reference

compiled = None if native.fallback_reason else import_module("native.compiled")
LEVELS = [] if compiled is None else list(compiled.levels())
BACKENDS = {"reference": reference} | {
    f"native-{level}": compiled.Compiled(level) for level in LEVELS
}
FUZZ = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
F32, F16, U8 = np.float32, np.float16, np.uint8
TINY = [0.0, -0.0, 1e-45, -1e-40, 6e-8, 2.9e-8, 6.1e-5]
LARGE = [65504, 65519.996, 65520, -1e30, 3.4e38, np.nan, np.inf, -np.inf]
SPECIAL = np.array([*TINY, *LARGE, 0.1, 1.00048828125, 1.00146484375], F32)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Every test below runs on the reference and on each level of this CPU."""
    monkeypatch.setattr(native, "_backend", BACKENDS[request.param])


def array(data, dtype, offset=0):
    """Return the bytes as an array, `offset` bytes after an aligned address."""
    count = len(data) // np.dtype(dtype).itemsize
    return np.frombuffer(bytes(offset) + data, dtype, count, offset)


def empty_at(count, dtype, offset):
    """Return a writable array at that offset, and the bytes on both sides of it."""
    raw = np.full(count * np.dtype(dtype).itemsize + offset + 8, 0xA5, U8)
    inside = raw[offset : raw.size - 8]
    return inside.view(dtype), (raw[:offset], raw[raw.size - 8 :])


def same(a, b):
    """Tell whether two float arrays have the same bits, but for the payload of NaN."""
    bits = {2: np.uint16, 4: np.uint32}[a.itemsize]
    nan = np.isnan(a)
    return np.array_equal(nan, np.isnan(b)) and np.array_equal(
        a[~nan].view(bits), b[~nan].view(bits)
    )


def onnx_node(operator, inputs, outputs, **attributes):
    """Return what onnxruntime computes for one node; outputs are (dtype, shape)."""
    element = onnx.helper.np_dtype_to_tensor_dtype
    info = onnx.helper.make_tensor_value_info
    names = [f"o{k}" for k in range(len(outputs))]
    feeds = {f"i{k}": value for k, value in enumerate(inputs)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, list(feeds), names, **attributes)],
        operator,
        [info(name, element(v.dtype), v.shape) for name, v in feeds.items()],
        [
            info(name, element(np.dtype(dtype)), shape)
            for name, (dtype, shape) in zip(names, outputs, strict=True)
        ],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def quantised(x):
    out = np.full(x.shape, 0xA5, U8)
    scale, zero_point = native.quantise(x, out)
    return out, scale, zero_point


def tensors():
    random = np.random.default_rng(1)
    yield random.standard_normal(1001, F32)
    yield random.standard_normal((3, 5, 77), F32) * F32(1e-30) + F32(3e-31)
    yield np.abs(random.standard_normal(256, F32)) * F32(1e30)
    yield -np.abs(random.standard_normal(63, F32)) - F32(5)
    yield (np.arange(-1000, 1550, dtype=F32) / F32(20))  # many exact halves
    yield random.integers(-127, 128, 4096).astype(F32) * F32(0.5)
    yield np.array([1e-40, -1e-40, 3e-41], F32)
    yield np.zeros(9, F32)
    yield np.full(5, 7.25, F32)


@pytest.mark.usefixtures("backend")
class TestQuantise:
    @pytest.mark.parametrize("x", list(tensors()))
    def test_equals_dynamic_quantize_linear(self, x):
        outputs = [(U8, x.shape), (F32, ()), (U8, ())]
        codes, scale, zero_point = onnx_node("DynamicQuantizeLinear", [x], outputs)
        got = quantised(x)
        assert np.array_equal(got[0], codes)
        assert got[1:] == (float(scale), int(zero_point))

    @pytest.mark.skipif(
        platform.machine() != "x86_64", reason="onnxruntime's NaN depends on the CPU"
    )
    def test_nan_is_what_onnxruntime_makes_of_it(self):
        x = np.array([np.nan, -1, 2] * 50 + [np.nan], F32)
        outputs = [(U8, x.shape), (F32, ()), (U8, ())]
        codes, scale, zero_point = onnx_node("DynamicQuantizeLinear", [x], outputs)
        got = quantised(x)
        assert np.array_equal(got[0], codes)
        assert got[1:] == (float(scale), int(zero_point))

    @pytest.mark.parametrize(
        "values", [[], [0.0, -0.0], [np.nan], [1e-45], [-1e-44, 3e-44]]
    )
    def test_vanishing_range_has_scale_one(self, values):
        codes, scale, zero_point = quantised(np.array(values, F32))
        assert (scale, zero_point) == (1.0, 0)
        assert not codes.any()

    def test_signalling_nan_does_not_count_for_the_range(self):
        x = np.linspace(-1, 1, 100, dtype=F32)
        x.view(np.uint32)[::7] = 0x7F800001
        assert quantised(x)[1] == quantised(x[~np.isnan(x)])[1]

    @pytest.mark.parametrize(
        "values", [[np.inf], [1, -np.inf], [3e38, -3e38], [np.nan, np.inf] * 40]
    )
    def test_refuses_a_range_that_is_not_finite(self, values):
        out = np.full(len(values), 0xA5, U8)
        with pytest.raises(ValueError, match=r"native\.quantise: .* clip it first"):
            native.quantise(np.array(values, F32), out)
        assert (out == 0xA5).all()

    @FUZZ
    @given(st.binary(max_size=1200), st.integers(0, 9), st.integers(-60, 60))
    def test_equals_the_reference(self, data, offset, exponent):
        bits = array(data, np.uint32)
        mantissas = (bits % 0x7FFFFF | 0x3F800000).view(F32) - F32(1.3)
        x = array((mantissas * F32(2.0**exponent)).tobytes(), F32, offset)
        expected = np.empty(x.size, U8)
        parameters = reference.quantise(x, expected)[:2]
        out, around = empty_at(x.size, U8, offset)
        assert native.quantise(x, out) == parameters
        assert np.array_equal(out, expected)
        assert all((edge == 0xA5).all() for edge in around)

    @FUZZ
    @given(st.binary(max_size=400), st.integers(0, 3))
    def test_any_bits_give_the_reference_or_its_refusal(self, data, offset):
        x = array(data, F32, offset)
        expected, out = np.zeros(x.size, U8), np.zeros(x.size, U8)
        scale, zero_point, status = reference.quantise(x, expected)
        if status == reference.OK:
            assert native.quantise(x, out) == (scale, zero_point)
        else:
            with pytest.raises(ValueError, match="clip it first"):
                native.quantise(x, out)
        assert np.array_equal(out, expected)


@pytest.mark.usefixtures("backend")
class TestDequantise:
    @pytest.mark.parametrize("scale", [0.0173, 1e-40, 3e36, -2.5, 0.0])
    @pytest.mark.parametrize("zero_point", [0, 1, 128, 255])
    def test_equals_dequantize_linear(self, scale, zero_point):
        q = np.arange(771).astype(U8)
        step, zero = np.array(scale, F32), np.array(zero_point, U8)
        (expected,) = onnx_node("DequantizeLinear", [q, step, zero], [(F32, q.shape)])
        out = np.empty(q.shape, F32)
        native.dequantise(q, float(step), zero_point, out)
        assert same(out, expected)

    @FUZZ
    @given(st.binary(max_size=300), st.integers(0, 9), st.integers(0, 255))
    def test_equals_the_reference(self, data, offset, zero_point):
        q = array(data, U8, offset)
        expected = np.empty(q.size, F32)
        reference.dequantise(q, 0.0173, zero_point, expected)
        out, around = empty_at(q.size, F32, offset)
        native.dequantise(q, 0.0173, zero_point, out)
        assert same(out, expected)
        assert all((edge == 0xA5).all() for edge in around)

    @pytest.mark.parametrize("scale", [np.nan, np.inf, 1e39])
    def test_refuses_a_scale_that_is_no_finite_float32(self, scale):
        with pytest.raises(ValueError, match="not a finite float32"):
            native.dequantise(np.zeros(1, U8), scale, 0, np.zeros(1, F32))

    @pytest.mark.parametrize("zero_point", [-1, 256])
    def test_refuses_a_zero_point_that_is_no_code(self, zero_point):
        with pytest.raises(ValueError, match=r"not within 0\.\.255"):
            native.dequantise(np.zeros(1, U8), 1.0, zero_point, np.zeros(1, F32))


@pytest.mark.usefixtures("backend")
class TestFloat16:
    def test_equals_cast_to_float16(self):
        x = np.tile(SPECIAL, 7)
        float16 = onnx.TensorProto.FLOAT16
        (expected,) = onnx_node("Cast", [x], [(F16, x.shape)], to=float16)
        out = np.empty(x.shape, F16)
        native.to_float16(x, out)
        assert same(out, expected)

    def test_every_float16_becomes_what_cast_makes_and_returns(self):
        h = np.arange(1 << 16, dtype=np.uint16).view(F16)
        float32 = onnx.TensorProto.FLOAT
        (expected,) = onnx_node("Cast", [h], [(F32, h.shape)], to=float32)
        wide, back = np.empty(h.shape, F32), np.empty(h.shape, F16)
        native.to_float32(h, wide)
        native.to_float16(wide, back)
        assert same(wide, expected)
        assert same(back, h)

    def test_rounds_half_to_even_between_every_two_neighbours(self):
        h = np.arange(0x7BFF, dtype=np.uint16).view(F16).astype(F32)
        middle = (h[:-1] + h[1:]) / F32(2)
        x = np.concatenate([f(middle) for f in (np.copy, below, above)])
        expected, out = np.empty(x.shape, F16), np.empty(x.shape, F16)
        reference.to_float16(x, expected)
        native.to_float16(x, out)
        assert same(out, expected)

    def test_overflow_gives_infinity_and_no_warning(self):
        out = np.empty(40, F16)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            native.to_float16(np.full(40, 1e30, F32), out)
        assert np.isinf(out).all()

    @FUZZ
    @given(st.binary(max_size=400), st.integers(0, 9))
    def test_to_float16_equals_the_reference(self, data, offset):
        x = array(data, F32, offset)
        expected = np.empty(x.size, F16)
        reference.to_float16(x, expected)
        out, around = empty_at(x.size, F16, offset)
        native.to_float16(x, out)
        assert same(out, expected)
        assert all((edge == 0xA5).all() for edge in around)

    @FUZZ
    @given(st.binary(max_size=400), st.integers(0, 9))
    def test_to_float32_equals_the_reference(self, data, offset):
        h = array(data, F16, offset)
        expected = np.empty(h.size, F32)
        reference.to_float32(h, expected)
        out, around = empty_at(h.size, F32, offset)
        native.to_float32(h, out)
        assert same(out, expected)
        assert all((edge == 0xA5).all() for edge in around)


def below(x):
    return np.nextafter(x, F32(0))


def above(x):
    return np.nextafter(x, F32(np.inf))


@pytest.mark.usefixtures("backend")
class TestNormalise:
    @FUZZ
    @given(st.integers(0, 9), st.integers(0, 41), st.integers(1, 6), st.integers(0, 9))
    def test_equals_the_reference(self, height, width, channels, offset):
        random = np.random.default_rng(width)
        shape = (height, width, channels)
        pixels = random.integers(0, 256, shape, U8)
        factor = random.standard_normal(channels, F32)
        shift = random.standard_normal(channels, F32)
        expected = np.empty((channels, height, width), F32)
        reference.normalise(pixels, factor, shift, expected)
        out, around = empty_at(expected.size, F32, offset)
        native.normalise(pixels, factor, shift, out.reshape(expected.shape))
        assert same(out.reshape(expected.shape), expected)
        assert all((edge == 0xA5).all() for edge in around)

    def test_does_not_fuse_product_and_sum(self):
        pixels = np.arange(256).astype(U8).reshape(16, 16, 1)
        factor, shift = np.array([0.1], F32), np.array([-12.7], F32)
        out = np.empty((1, 16, 16), F32)
        native.normalise(pixels, factor, shift, out)
        assert same(out[0], pixels[..., 0] * factor + shift)

    @pytest.mark.parametrize(
        ("pixels", "channels", "out", "message"),
        [
            ((4, 6), 3, (3, 4, 2), "height, width, channels"),
            ((4, 2, 3), 3, (4, 2, 3), r"make it \(3, 4, 2\)"),
            ((4, 2, 3), 4, (3, 4, 2), "scale has shape"),
        ],
    )
    def test_refuses_other_shapes(self, pixels, channels, out, message):
        vector = np.ones(channels, F32)
        with pytest.raises(ValueError, match=message):
            native.normalise(np.zeros(pixels, U8), vector, vector, np.zeros(out, F32))


def read_only(a):
    a.flags.writeable = False
    return a


@pytest.mark.usefixtures("backend")
class TestArguments:
    @pytest.mark.parametrize(
        ("x", "out", "message"),
        [
            (np.zeros(4), np.zeros(4, U8), "the input has dtype float64"),
            (np.zeros(4, ">f4"), np.zeros(4, U8), "the input has dtype >f4"),
            (np.zeros(4, F32), np.zeros(4, np.int8), "out has dtype int8"),
            (np.zeros(4, F32), np.zeros(5, U8), "has 4 elements, out has 5"),
            (np.zeros(8, F32)[::2], np.zeros(4, U8), r"strides \(8,\)"),
            (np.zeros(4, F32), np.zeros(8, U8)[::2], "C-contiguous"),
            (np.zeros((2, 2), F32).T, np.zeros((2, 2), U8), "C-contiguous"),
            (np.zeros(4, F32), read_only(np.zeros(4, U8)), "read-only"),
        ],
    )
    def test_wrong_arrays_are_refused(self, x, out, message):
        with pytest.raises(ValueError, match=r"^native\.quantise: .*" + message):
            native.quantise(x, out)

    def test_shared_memory_is_refused(self):
        x = np.ones(64, F32)
        bytes_of_x, halves_of_x = x.view(U8), x.view(F16)
        vector = np.ones(1, F32)
        calls = [
            lambda: native.quantise(x, bytes_of_x[:64]),
            lambda: native.dequantise(bytes_of_x[-64:], 1.0, 0, x),
            lambda: native.to_float16(x, halves_of_x[64:]),
            lambda: native.to_float32(halves_of_x[:64], x),
            lambda: native.normalise(
                bytes_of_x[:64].reshape(8, 8, 1), vector, vector, x.reshape(1, 8, 8)
            ),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="share memory"):
                call()
        assert (x == 1).all()

    def test_adjacent_memory_is_not_shared(self):
        raw = np.zeros(5 * 64, U8)
        native.quantise(raw[: 4 * 64].view(F32), raw[4 * 64 :])


def test_subnormals_survive_the_extension():
    """Linking with -ffast-math would set flush-to-zero in the thread that loads it."""
    tiny = np.array([1e-40], F32)
    assert (tiny * F32(0.5) > 0).all()


@pytest.mark.skipif(compiled is None, reason="no extension here")
class TestExtension:
    def test_implementation_is_the_highest_level(self):
        assert BACKENDS[f"native-{LEVELS[-1]}"].name == native.IMPLEMENTATION

    def test_a_level_beyond_the_cpu_is_refused(self):
        with pytest.raises(ValueError, match="is not among"):
            compiled.Compiled(LEVELS[-1] + 1)

    def test_statuses_are_those_of_the_header(self):
        lib = compiled.lib
        statuses = (lib.US_OK, lib.US_ERR_RANGE, lib.US_ERR_OVERLAP)
        assert statuses == (reference.OK, reference.RANGE, reference.OVERLAP)
