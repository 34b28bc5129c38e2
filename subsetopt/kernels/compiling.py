"""How kernels are compiled, and kept on disk.

The first use of a kernel waits for its compilation, most of which Numba spends on what no kernel
needs. This is left out here, by the interfaces that Numba has for compilers and dispatchers of
one's own; what a kernel computes is the same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numba
from numba.core import compiler, types
from numba.core.codegen import JITCodeLibrary
from numba.core.registry import CPUDispatcher
from numba.core.typing.context import Context
from numba.core.typing.templates import make_concrete_template

from subsetopt.kernels.cache import KernelCache
from subsetopt.kernels.progress import WATCH

__all__ = ["Kernel", "njit", "uncounted"]

# The versions of Numba with which this was tried. Its interfaces for compilers change without
# notice, so with any other version Numba compiles by itself: the same answers, after a longer wait.
_OLDEST, _NEWEST = (0, 59), (0, 68)
# Numba wraps every function for callers in C, which no kernel has.
_COMMON: dict[str, Any] = {"no_cfunc_wrapper": True}


class _Code(JITCodeLibrary):
    """The instructions of a kernel; Numba would optimize each function alone, and all together."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout


class _Part(_Code):
    """The instructions of a kernel that others call: they are optimized as a part of these.

    If asked for, they are also optimized alone, as Numba would: within its callers, a loop is not
    always found to be one that takes several numbers at a time.
    """

    def __init__(self, codegen: Any, name: str, *, alone: bool) -> None:
        super().__init__(codegen, name)
        self._alone = alone

    def _optimize_functions(self, ll_module: Any) -> None:
        if self._alone:
            JITCodeLibrary._optimize_functions(self, ll_module)
        else:
            super()._optimize_functions(ll_module)

    def _optimize_final_module(self) -> None:
        if self._alone:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _Typing(Context):
    """Numba's rules of types, and what they said of each operation.

    Numba tries all rules for every operation several times, and words an error for each that does
    not apply: that is a quarter of the time of compiling.
    """

    _known: ClassVar[dict[tuple[int, Any], tuple[Any, Any]]] = {}

    @classmethod
    def of(cls, context: Any) -> _Typing:
        """Return the rules of a context, with all that are added to it later."""
        rules = cls.__new__(cls)
        rules.__dict__ = context.__dict__
        return rules

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """Return the types of a call, or None where no rule applies."""
        if kws or not isinstance(func, types.Function):
            return super().resolve_function_type(func, args, kws)
        call = id(func), tuple(args)
        if call not in self._known:
            resolved = super().resolve_function_type(func, args, kws)
            if resolved is None:
                return None
            self._known[call] = func, resolved  # the function is kept, or its id would be reused
        return self._known[call][1]


class _Pipeline(compiler.Compiler):
    """The stages of compiling, with the rules and the instructions of above."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        if library is None:
            library = _Code(targetctx.codegen(), "kernel")
            library.enable_object_caching()
        super().__init__(_Typing.of(typingctx), targetctx, library, *rest)


class _Thorough(compiler.Compiler):
    """The stages of compiling, with the rules of above and the instructions as Numba makes them."""

    def __init__(self, typingctx: Any, *rest: Any) -> None:
        super().__init__(_Typing.of(typingctx), *rest)


class Kernel(CPUDispatcher):
    """A kernel as Python calls it, and as other kernels do.

    Numba compiles what a kernel calls as if Python called it, too: it optimizes the instructions
    for themselves and again within every caller, and makes machine code and a wrapper for Python
    that nobody calls. Here they are only a part of the callers.

    Attributes
    ----------
    alone
        Whether the instructions are also optimized before they become a part of callers, and as
        often as Numba does it where Python calls.
    """

    def __init__(
        self,
        py_func: Callable[..., Any],
        locals: Any = None,
        targetoptions: Any = None,
        *,
        alone: bool = False,
    ) -> None:
        pipeline = _Thorough if alone else _Pipeline
        super().__init__(py_func, locals or {}, targetoptions or {}, pipeline_class=pipeline)
        self.alone = alone
        self._parts: dict[tuple[Any, ...], Any] = {}

    def compile(self, sig: Any) -> Any:
        """Compile for arguments of some types, and return what Python calls."""
        with _uncollected():
            entry = super().compile(sig)
        compiled: Any
        for compiled in self.overloads.values():
            if compiled.entry_point is entry:
                # Numba does so only for what it loads from disk, where parts are compiled, too.
                for environment in compiled._find_referenced_environments():
                    compiled.library.codegen.set_env(environment.env_name, environment)
        return entry

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return the types of a call by another kernel, with those of its arguments."""
        pysig, args = self.fold_argument_types(args, kws)
        # Numba would compile once more for every constant.
        args = tuple(types.unliteral(kind) for kind in args)
        if args not in self._parts:
            WATCH.begin()
            self._parts[args] = self._part(args)
            WATCH.end()
        name = self.py_func.__name__
        signatures = [part.signature for part in self._parts.values()]
        template = make_concrete_template(f"part({name})", name, signatures)
        return template, pysig, args, {}

    def get_overload(self, sig: Any) -> Any:
        """Return the key by which callers find the instructions for arguments of some types."""
        return self._parts[tuple(sig)].library

    def _part(self, args: tuple[Any, ...]) -> Any:
        """Compile for arguments of some types as a part of other kernels."""
        flags: Any = compiler.Flags()
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
            library=_Part(target.codegen(), self.py_func.__qualname__, alone=self.alone),
            pipeline_class=_Pipeline,
        )
        target.insert_user_function(part.library, part.fndesc, [part.library])
        return part


@contextmanager
def _uncollected() -> Iterator[None]:
    """Switch the collection of garbage off: it takes a tenth of the time, and finds nothing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def njit(
    *, cache: bool, alone: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator like Numba's of that name, with a :class:`KernelCache` if asked for.

    With ``alone``, loops of the kernel are optimized before it becomes a part of others. It takes
    longer to compile, and a kernel that adds many numbers may be faster by some percent.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(**_COMMON, **options)(function)
        if dispatcher is function:  # it is, with NUMBA_DISABLE_JIT
            return function
        # Numba makes functions of its own of parallel loops.
        if "parallel" not in options and _OLDEST <= numba.version_info[:2] <= _NEWEST:
            dispatcher = Kernel(function, targetoptions=dispatcher.targetoptions, alone=alone)
        if cache:
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
