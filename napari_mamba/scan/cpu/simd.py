"""Vectors of WIDTH float32 for Numba kernels, and the elementary functions of the scan on them.

Numba leaves vectorisation to LLVM, which gives up on loops as long and branched as the scan's. Here a value of type
`vector` is one LLVM <16 x float>: an AVX-512 register, two of AVX2, four of NEON. Only operators on vectors are
defined; a scalar is made a vector by `splat`. Numba's cache looks for changes in a kernel's own file only, so the files
of the kernels name the revision of this one, and a test compares.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 16
_FLOATS, _INTS = (ir.VectorType(ir.FloatType(), WIDTH), ir.VectorType(ir.IntType(32), WIDTH))
_FLAGS = ("contract", "nsz")  # not "reassoc": (x + MAGIC) - MAGIC has to round


def compiled(function: Callable) -> Callable:
    """Compile a kernel at its first call, without the GIL, and keep it on disk where some cache folder is writable."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache
        return njit(nogil=True)(function)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type) -> None:
        super().__init__(manager, fe_type, _FLOATS)


def _operator(function: Callable, instruction: str) -> None:
    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and all(isinstance(arg, _Vector) for arg in args):
                return signature(vector, vector, vector)
            return None

    @lower_builtin(function, _Vector, _Vector)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args, flags=_FLAGS)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _constant(value: float) -> ir.Constant:
    if isinstance(value, int):
        return ir.Constant(_INTS, [value] * WIDTH)
    return ir.Constant(_FLOATS, [value] * WIDTH)


def _pointer(context, builder, array_type, array, index):
    base = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(base, [index]), _FLOATS.as_pointer())


@intrinsic
def load(typingctx, array, index):
    """Return the WIDTH floats of a flat array from an index on."""

    def codegen(context, builder, sig, args):
        return builder.load(_pointer(context, builder, sig.args[0], *args), align=4)

    return vector(array, types.int64), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Write WIDTH floats of a flat array from an index on."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen


@intrinsic
def splat(typingctx, scalar):
    """Return a vector of one float32, WIDTH times."""

    def codegen(context, builder, sig, args):
        one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), _constant(0))

    return vector(types.float32), codegen


@intrinsic
def get(typingctx, value, lane):
    """Return one lane of a vector."""

    def codegen(context, builder, sig, args):
        return builder.extract_element(args[0], args[1])

    return types.float32(vector, types.int64), codegen


@intrinsic
def put(typingctx, value, lane, scalar):
    """Return a vector with one lane replaced."""

    def codegen(context, builder, sig, args):
        return builder.insert_element(args[0], args[2], args[1])

    return vector(vector, types.int64, types.float32), codegen


@intrinsic
def total(typingctx, value):
    """Return the sum of a vector's lanes, pairwise."""

    def codegen(context, builder, sig, args):
        part, half = args[0], WIDTH // 2
        while half:
            low = ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(half)))
            high = ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(half, 2 * half)))
            undefined = ir.Constant(part.type, ir.Undefined)
            part = builder.fadd(
                builder.shuffle_vector(part, undefined, low), builder.shuffle_vector(part, undefined, high)
            )
            half //= 2
        return builder.extract_element(part, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), codegen


# 2^f = 1 + f·q(f) on [-1/2, 1/2] and log(1 + e) = e·r(e) on [0, 1], fitted for the least greatest relative error
# (1e-7 and 3e-8). The 1 is exact: a decay of almost 1, to the power of a long sequence, must not drift.
_Q = (0.6931469788008623, 0.24022242364138863, 0.05550732300515888, 0.009671499782235787, 0.0013265120075549133)
_R = (
    *(0.9999999698813221, -0.4999949314771701, 0.3331908689, -0.24842982661421473, 0.1910600796305571),
    *(-0.13663247540998386, 0.07822596518438821, -0.02950524332030174, 0.005232694628589893),
)
_MAGIC = 1.5 * 2**23  # adding it leaves round(x) in the low bits
_LOG2E = 1.4426950408889634


def _polynomial(builder, x, coefficients):
    value = _constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = builder.fadd(builder.fmul(value, x, flags=_FLAGS), _constant(coefficient), flags=_FLAGS)
    return value


def _exp2(builder, x):
    low, high, magic = _constant(-126.0), _constant(126.0), _constant(_MAGIC)
    x = builder.select(builder.fcmp_ordered("<", x, low), low, x)  # a NaN stays one
    x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
    shifted = builder.fadd(x, magic)
    f = builder.fsub(x, builder.fsub(shifted, magic))
    bits = builder.bitcast(_polynomial(builder, f, (1.0, *_Q)), _INTS)
    exponent = builder.shl(builder.bitcast(shifted, _INTS), _constant(23))
    return builder.bitcast(builder.add(bits, exponent), _FLOATS)


def _softplus(builder, x):
    minus = builder.or_(builder.bitcast(x, _INTS), _constant(-(2**31)))  # -|x|
    e = _exp2(builder, builder.fmul(builder.bitcast(minus, _FLOATS), _constant(_LOG2E)))
    zero = _constant(0.0)
    positive = builder.select(builder.fcmp_ordered("<", x, zero), zero, x)
    return builder.fadd(positive, builder.fmul(e, _polynomial(builder, e, _R), flags=_FLAGS), flags=_FLAGS)


def _sigmoid(builder, x):
    e = _exp2(builder, builder.fmul(x, _constant(-_LOG2E)))
    return builder.fdiv(_constant(1.0), builder.fadd(_constant(1.0), e))


def _function(name: str, body: Callable, doc: str):
    def make(typingctx, x):
        def codegen(context, builder, sig, args):
            return body(builder, args[0])

        return vector(vector), codegen

    make.__name__, make.__qualname__, make.__doc__ = name, name, doc
    return intrinsic(make)


exp2 = _function("exp2", _exp2, "2^x, relative error 2e-7; x is clamped to [-126, 126].")
softplus = _function("softplus", _softplus, "log(1 + exp(x)), relative error 2e-7.")
sigmoid = _function("sigmoid", _sigmoid, "1 / (1 + exp(-x)), relative error 3e-7.")


@njit
def zeros(size):
    """Return a flat array of float32 zeros that starts at a cache line, so that no vector straddles two."""
    array = np.zeros(size + 16, np.float32)
    start = -(array.ctypes.data // 4) % 16
    return array[start : start + size]


@njit(forceinline=True)
def load_part(array, index, size):
    """Return `size` floats of a flat array from an index on, and zeros in the lanes after them."""
    if size == WIDTH:
        value = load(array, index)
    else:
        value = splat(types.float32(0.0))
        for d in range(size):
            value = put(value, d, array[index + d])
    return value


@njit(forceinline=True)
def store_part(array, index, size, value):
    """Write the first `size` lanes of a vector."""
    if size == WIDTH:
        store(array, index, value)
    else:
        for d in range(size):
            array[index + d] = get(value, d)
