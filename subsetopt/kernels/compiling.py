"""How kernels are compiled, and kept on disk."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numba
from numba.core import compiler, types, typing
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import CPUDispatcher

from subsetopt.kernels.cache import KernelCache

__all__ = ["njit", "uncounted"]

# Numba wraps every function for callers in C, which no kernel has.
_COMMON: dict[str, Any] = {"no_cfunc_wrapper": True}


class _Code(JITCodeLibrary):  # type: ignore[misc]
    """The instructions of a kernel, optimized once all parts are together."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout


class _Part(_Code):
    """The instructions of a kernel as other kernels take them in, without machine code."""

    def _optimize_final_module(self) -> None:
        """Leave the instructions as they are: they are optimized where they are called."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _Typing(typing.Context):  # type: ignore[misc]
    """Numba's rules of types, and which of them applied: it asks for every operation anew."""

    _known: ClassVar[dict[Any, Any]] = {}

    @classmethod
    def of(cls, context: Any) -> _Typing:
        """Return the rules of a context, with all that is added to them later."""
        rules = cls.__new__(cls)
        rules.__dict__ = context.__dict__
        return rules

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """Return the types of a call."""
        if kws or not isinstance(func, types.Function):
            return super().resolve_function_type(func, args, kws)
        call = id(func), tuple(args)
        if call not in self._known:
            resolved = super().resolve_function_type(func, args, kws)
            if resolved is None:
                return None
            self._known[call] = func, resolved
        return self._known[call][1]


class _Pipeline(compiler.Compiler):  # type: ignore[misc]
    """How Numba compiles a kernel."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        if library is None:
            library = _Code(targetctx.codegen(), "kernel")
            library.enable_object_caching()
        super().__init__(_Typing.of(typingctx), targetctx, library, *rest)


class Kernel(CPUDispatcher):  # type: ignore[misc]
    """A kernel, whose instructions become part of every kernel that calls it.

    Numba compiles what a kernel calls as if Python called it, too: it optimizes the instructions
    for themselves and again within every caller, and makes machine code and a wrapper for Python
    that nobody calls. That is half of the time of compiling.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, pipeline_class=_Pipeline)
        self._parts: dict[Any, Any] = {}

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return what Numba has to know of a call by another kernel, with these types."""
        pysig, args = self.fold_argument_types(args, kws)
        args = tuple(types.unliteral(kind) for kind in args)
        if args not in self._parts:
            self._parts[args] = self._part(args)
        name = self.py_func.__name__
        signatures = [part.signature for part in self._parts.values()]
        template = typing.make_concrete_template(f"part({name})", name, signatures)
        return template, pysig, args, {}

    def get_overload(self, sig: Any) -> Any:
        """Return the key by which Numba finds the instructions for arguments of these types."""
        return self._parts[tuple(sig)].library

    def _part(self, args: Any) -> Any:
        flags = compiler.Flags()
        self.targetdescr.options.parse_as_flags(flags, self.targetoptions)
        flags.no_compile = True
        flags.no_cpython_wrapper = True
        target = self.targetdescr.target_context
        part = compiler.compile_extra(
            self.targetdescr.typing_context,
            target,
            self.py_func,
            args=args,
            return_type=None,
            flags=flags,
            locals=self.locals,
            library=_Part(target.codegen(), self.py_func.__qualname__),
            pipeline_class=_Pipeline,
        )
        target.insert_user_function(part.library, part.fndesc, [part.library])
        return part

    def compile(self, sig: Any) -> Any:
        """Compile for a signature, and return what Python calls."""
        with _no_collection():
            entry = super().compile(sig)
        return entry


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the collection of garbage off, which takes a tenth of the time of compiling."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def njit(*, cache: bool, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return Numba's decorator of that name, with a :class:`KernelCache` where one is asked for."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(**_COMMON, **options)(function)
        if dispatcher is function:
            return function
        if not {"inline", "parallel"} & set(options):
            dispatcher = Kernel(function, targetoptions=dispatcher.targetoptions)
        if cache:  # it is, with NUMBA_DISABLE_JIT
            dispatcher._cache = KernelCache(function)
        return dispatcher

    return compiled


# Numba counts references to every array of a named tuple at every call, also between compiled
# functions: some 5 ns per array, by which a swap search took 15% longer.
_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}


def uncounted(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a kernel that allocates no array, without counting references to its arguments.

    Used as a decorator, as it is or with options of Numba's ``njit``. What the kernel calls counts
    none either.
    """
    compile_ = njit(**_OPTIONS, **options)
    return compile_ if function is None else compile_(function)
