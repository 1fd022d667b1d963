"""A pretend CUDA device, in Python: runs code meant for a GPU on a machine without one, and refuses
what CUDA would refuse.

    with pretend_cuda.device() as gpu:
        ...                                     # torch.cuda.is_available() is true, tensors go to
    'cuda' and back gpu.counts                                  # {(kind, file:line): times}

kind: 'kernel'; 'wait', when the host waited until the device had nothing left to do; 'event', when
it waited for something earlier; 'copy', from memory that is not pinned, which may wait. Waits of
other threads than the main one end in ' behind'.

A tensor "on the device" is a wrapper around a CPU tensor (`host`), so results are the CPU's to the
bit. Refused, with CUDA's
words where it has some: operands on different devices (CPU tensors without dimensions may join
elementwise operations, and CPU tensors may index), CUDA indices into CPU tensors, .numpy(), a
generator of the other device, the device in a forked process, changing pinned memory under a copy,
reading a copy to the host that need not have ended (non_blocking=True): it holds 0xAA until the
host has waited for it; what has no deterministic form, where only such may be used.

Not pretended: speed, memory, rounding, cuDNN, cuSPARSE, NCCL, streams; of several devices, all but
which one is current.
Autocast casts what torch's list for CUDA says, at the level of Python functions.
"""
import collections
import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.data import _utils as data_utils

_pin_data = data_utils.pin_memory.pin_memory
aten = torch.ops.aten
CUDA = torch.device('cuda', 0)
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
MIXED = ('Expected all tensors to be on the same device, but found at least two devices, cuda:0 '
         'and cpu! (pretend: {})')

INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
         aten._index_put_impl_.default, aten._unsafe_index.Tensor}
SCALAR = {aten.where.self, aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor,
          aten.clamp.Tensor}
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
         aten._unique2.default,
         aten.unique_consecutive.default, aten.is_nonzero.default, aten.equal.default}
# of what torch.use_deterministic_algorithms refuses, what this code might meet
VARYING = {aten.upsample_bilinear2d_backward.default, aten.max_pool2d_with_indices_backward.default,
           aten.nll_loss2d_forward.default, aten._adaptive_avg_pool2d_backward.default,
           aten.histc.default, aten.median.dim, aten.put_.default}

# torch's documented lists of what autocast does on CUDA, as far as this code meets them
LOWER = {'conv1d', 'conv2d', 'conv3d', 'linear', 'matmul', 'mm', 'bmm', 'addmm', 'addmv', 'einsum',
         '__matmul__', '__rmatmul__'}
FULL = {'group_norm', 'layer_norm', 'softmax', 'log_softmax', 'log', 'log1p', 'exp', 'pow',
        '__pow__', 'prod', 'sum', 'cumsum',
        'norm', 'dist', 'reciprocal', 'rsqrt', 'softplus', 'mse_loss', 'l1_loss', 'smooth_l1_loss',
        'nll_loss',
        'cosine_similarity', 'renorm', 'cumprod', 'sinh', 'cosh', 'tan', 'acos', 'asin', 'erfinv',
        'expm1', 'log10', 'log2'}
WIDEST = {'cat', 'stack', 'addcmul', 'addcdiv', 'bilinear', 'cross', 'tensordot', 'scatter_add',
          'index_put'}


class CudaTensor(torch.Tensor):
    """`host`, as a tensor of the pretend device. C++ sees it as a meta tensor: their backward runs
    in the calling thread.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> 'CudaTensor':
        dense = host.layout == torch.strided
        strides = host.stride() if dense else torch.empty(host.shape, device='meta').stride()
        # else a view of a normal tensor would be one of inference
        with torch.inference_mode(host.is_inference()):
            wrapper = torch.Tensor._make_wrapper_subclass(
                cls, host.shape, strides=strides, storage_offset=host.storage_offset() if dense
                else 0, dtype=host.dtype, device='meta')
        wrapper.host = host
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    device = property(lambda self: torch.device('cuda', _current().current_device))
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    layout = property(lambda self: self.host.layout)

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to "
                        "copy the tensor to host memory "
                        'first.')

    def __array__(self, *values: Any, **named: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def is_pinned(self, *values: Any) -> bool:
        return False

    def pin_memory(self, *values: Any) -> torch.Tensor:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be "
                           "pinned")

    def __deepcopy__(self, memo: dict) -> 'CudaTensor':
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if hasattr(self, '_is_param'):
            copied._is_param = True
        return copied

    def __reduce_ex__(self, protocol: int) -> Any:
        _current().check_process()
        return self.host.__reduce_ex__(protocol)

    def __repr__(self, **named: Any) -> str:
        return f'{self.host!r} on {CUDA}'


class Gpu:
    """What happened on the device: how often each line of the code under test asked for a kernel
    (views ask for none), made the host wait, or copied from memory that is not pinned; and copies
    that are under way.

    current_device: the number that torch.cuda.set_device gave; pinned_on: those that were current
    when memory was pinned.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter = collections.Counter()
        self.process, self.lock = os.getpid(), threading.Lock()
        self.current_device, self.pinned_on = 0, set()
        # by the address of the storage, which stays taken
        self.pinned: dict[int, torch.Tensor] = {}
        # what ends a copy, in the order in which they were asked for
        self.queue: list[Callable[[], None] | None] = []
        self.ended = 0  # of them
        self.landing: list[torch.Tensor] = []  # host tensors that a copy still fills

    def check_process(self) -> None:
        if os.getpid() != self.process:
            raise RuntimeError('Cannot re-initialize CUDA in forked subprocess. To use CUDA with '
                               'multiprocessing, you must '
                               "use the 'spawn' start method")

    def note(self, kind: str) -> None:
        frame = sys._getframe(2)
        while frame is not None and _is_foreign(frame.f_code.co_filename):
            frame = frame.f_back
        where = ('backward' if frame is None
                 else f'{os.path.relpath(frame.f_code.co_filename)}:{frame.f_lineno}')
        if kind in ('wait', 'event') and threading.current_thread() is not threading.main_thread():
            kind += ' behind'
        with self.lock:
            self.counts[kind, where] += 1

    def total(self, kind: str, file: str = '') -> int:
        """How often in all, or in the lines of a file."""
        with self.lock:
            return sum(times for (each, where), times in self.counts.items() if each == kind
                       and where.startswith(file))

    def wait(self, until: int | None = None) -> None:
        """The host waits: the first `until` copies have ended, or all."""
        until = len(self.queue) if until is None else until
        for number in range(self.ended, until):
            self.queue[number]()
            self.queue[number] = None
        self.ended = max(self.ended, until)

    def copy_from_pinned(self, source: torch.Tensor) -> None:
        before = source.detach().clone()

        def end() -> None:
            if not torch.equal(source, before):
                raise AssertionError('pretend: pinned memory was changed while it was copied to '
                                     'the device')
        self.queue.append(end)

    def land(self, target: torch.Tensor) -> torch.Tensor:
        """`target`, which has the values of a copy to the host, without them until it has ended."""
        values, size = (target.detach().clone(memory_format=torch.preserve_format),
                        target.untyped_storage().nbytes())
        if values.untyped_storage().nbytes() != size:
            raise NotImplementedError('pretend: a copy to a part of a tensor of the host')
        ctypes.memset(target.untyped_storage().data_ptr(), 0xAA, size)
        self.landing.append(target)

        def end() -> None:
            self.landing[:] = [each for each in self.landing if each is not target]
            ctypes.memmove(target.untyped_storage().data_ptr(), values.untyped_storage().data_ptr(),
                           size)
        self.queue.append(end)
        return target

    def check_landed(self, tensors: list[torch.Tensor]) -> None:
        if self.landing and any(tensor.layout == torch.strided
                                and tensor.untyped_storage().data_ptr() ==
                                landing.untyped_storage().data_ptr() for tensor in tensors
                                for landing in self.landing):
            raise AssertionError('pretend: read on the host while a non_blocking copy need not '
                                 'have ended')

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.pinned


class Event:
    """torch.cuda.Event."""

    def record(self, stream: Any = None) -> None:
        gpu = _current()
        self.mark, self.kernels = len(gpu.queue), gpu.total('kernel')

    def query(self) -> bool:
        return self.mark <= _current().ended

    def synchronize(self) -> None:
        gpu = _current()
        gpu.note('event' if gpu.total('kernel') > self.kernels else 'wait')
        gpu.wait(self.mark)


def _is_foreign(path: str) -> bool:
    """Whether a line of this file is torch's, Python's or ours, not of the code under test."""
    return path == __file__ or path.startswith('<') or f'{os.sep}torch{os.sep}' in path


_gpu: Gpu | None = None


def _current() -> Gpu:
    if _gpu is None:
        raise RuntimeError('pretend: the device is gone')
    return _gpu


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type in ('cuda', 'meta')


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """An operation some of whose tensors, or whose result, are on the device."""
    # only inference mode brings such here
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
        # not decompose(), which may take a Python form that rounds otherwise
        return func._op_dk(COMPOSITE, *args, **kwargs)
    gpu = _current()
    gpu.check_process()
    flat, spec = tree_flatten((args, kwargs))
    ours = [value for value in flat if isinstance(value, CudaTensor)]
    theirs = [value for value in flat if isinstance(value, torch.Tensor)
              and not isinstance(value, CudaTensor)]
    target = kwargs.get('device')
    if func is aten.copy_.default:
        return _copy(gpu, *args, **kwargs)
    if func is aten._to_copy.default:
        return _to(gpu, args[0], **kwargs)
    if ours:
        _check(gpu, func, args, kwargs, ours, theirs)
    if func in VARYING and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f'{func} does not have a deterministic implementation, but you set '
                           "'torch.use_deterministic_algorithms(True)'")
    if func in WAITS or (func in INDEX and any(isinstance(index, torch.Tensor)
                                               and (index.dtype in (torch.bool, torch.uint8) or
                                                    not isinstance(index, CudaTensor))
                                               for index in args[1])):
        gpu.note('wait')
        gpu.wait()
    if not func.is_view:
        gpu.note('kernel')
    hosts = {id(each.host): each for each in ours}
    host_args, host_kwargs = tree_unflatten([each.host if isinstance(each, CudaTensor) else each
                                             for each in flat], spec)
    if target is not None:
        host_kwargs = host_kwargs | {'device': torch.device('cpu')}
    result = func(*host_args, **host_kwargs)
    if any(each.shape != each.host.shape for each in ours):
        raise NotImplementedError(f'pretend: {func} changes the shape of a tensor in place')
    if target is not None and not _is_ours(target):
        return result
    return tree_map(lambda each: hosts.get(id(each)) if id(each) in hosts else
                    CudaTensor(each) if isinstance(each, torch.Tensor) else each, result)


def _check(gpu: Gpu, func: Any, args: tuple, kwargs: dict, ours: list, theirs: list) -> None:
    gpu.check_landed(theirs)
    if func in INDEX:
        if not isinstance(args[0], CudaTensor):
            raise RuntimeError('indices should be either on cpu or on the same device as the '
                               'indexed tensor (cpu)')
        values = args[2] if len(args) > 2 and isinstance(args[2], torch.Tensor) else None
        theirs = [values] if values is not None and not isinstance(values, CudaTensor) else []
    may_join = torch.Tag.pointwise in func.tags or func in SCALAR or func in INDEX
    if any(each.dim() > 0 or not may_join for each in theirs):
        raise RuntimeError(MIXED.format(func))
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write and not all(
                isinstance(each, CudaTensor)
                for each in (value if isinstance(value, (list, tuple)) else [value])):
            raise RuntimeError(MIXED.format(f'{func} writes to {argument.name}'))


def _copy(gpu: Gpu, target: torch.Tensor, source: torch.Tensor,
          non_blocking: bool = False) -> torch.Tensor:
    """target.copy_(source) between the devices."""
    if isinstance(target, CudaTensor):
        _from_host(gpu, source, non_blocking)
    else:
        _to_host(gpu, non_blocking)
    aten.copy_.default(*(each.host if isinstance(each, CudaTensor) else each
                         for each in (target, source)))
    return target if isinstance(target, CudaTensor) or not non_blocking else gpu.land(target)


def _to(gpu: Gpu, source: torch.Tensor, device: Any = None, non_blocking: bool = False,
        **options: Any) -> torch.Tensor:
    """source.to(device, ...)."""
    options.pop('pin_memory', None)
    host = source.host if isinstance(source, CudaTensor) else source
    to_ours = isinstance(source, CudaTensor) if device is None else _is_ours(device)
    if to_ours:
        _from_host(gpu, source, non_blocking)
        return CudaTensor(aten._to_copy.default(host, **options))
    _to_host(gpu, non_blocking)
    result = aten._to_copy.default(host, **options)
    return gpu.land(result) if non_blocking else result


def _from_host(gpu: Gpu, source: torch.Tensor, non_blocking: bool) -> None:
    gpu.note('kernel')
    if isinstance(source, CudaTensor):
        return
    if not non_blocking:
        gpu.note('wait')
        gpu.wait()
    elif not gpu.is_pinned(source):
        gpu.note('copy')
    else:
        gpu.copy_from_pinned(source)


def _to_host(gpu: Gpu, non_blocking: bool) -> None:
    gpu.note('kernel')
    if not non_blocking:
        gpu.note('wait')
        gpu.wait()


class _Mode(TorchDispatchMode):
    """Sends what is made on, or goes to, the device to `_run`; and watches what the host reads."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat = [value for value in tree_flatten((args, kwargs))[0]
                if isinstance(value, torch.Tensor)]
        if any(_is_ours(each) for each in (*args, *kwargs.values())
               if isinstance(each, torch.device)) or any(
                isinstance(value, CudaTensor) for value in flat):
            with self:
                return _run(func, args, kwargs)
        _current().check_landed(flat)
        return func(*args, **kwargs)


class _Autocast(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, '__name__', ''), kwargs or {}
        wanted = self.dtype if name in LOWER else torch.float32 if name in FULL else None
        if name in WIDEST:
            given = {each.dtype for each in tree_flatten((args, kwargs))[0]
                     if isinstance(each, CudaTensor) and each.is_floating_point()}
            wanted = torch.float32 if given == {self.dtype, torch.float32} else None
        if wanted is not None:
            args, kwargs = tree_map(lambda each: each.to(wanted) if isinstance(each, CudaTensor)
                                    and each.dtype in (
                torch.float32, torch.float16, torch.bfloat16) else each, (args, kwargs))
        return func(*args, **kwargs)


class _Generators(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        generator = (kwargs or {}).get('generator')
        if generator is not None and args and isinstance(args[0], torch.Tensor):
            wanted, found = ('cuda' if there else 'cpu'
                             for there in (isinstance(args[0], CudaTensor), generator.on_device))
            if wanted != found:
                raise RuntimeError(f"Expected a '{wanted}' device type for generator but found "
                                   f"'{found}'")
        return func(*args, **(kwargs or {}))


class _Generator(torch.Generator):
    """A generator of the device it is asked for; its numbers are the CPU's."""

    def __new__(cls, device: Any = 'cpu') -> '_Generator':
        made = super().__new__(cls)
        made.on_device = torch.device(device).type == 'cuda'
        return made


def _pin(tensor: torch.Tensor, *values: Any) -> torch.Tensor:
    pinned = tensor.clone()
    gpu = _current()
    gpu.pinned[pinned.untyped_storage().data_ptr()] = pinned
    gpu.pinned_on.add(gpu.current_device)
    return pinned


def _pin_as_before_2_10(data: Any, device: Any = None) -> Any:
    """DataLoader's pinning as torch 2.6 to 2.9 have it: a tuple comes back as a list, a named tuple
    as it was.
    """
    pin = data_utils.pin_memory.pin_memory
    return [pin(each, device) for each in data] if type(data) is tuple else _pin_data(data, device)


def _set_device(device: Any) -> None:
    device = torch.device('cuda', device) if isinstance(device, int) else torch.device(device)
    if device.index is not None:
        _current().current_device = device.index


def _with_index(function: Any) -> Any:
    """`function` with 'cuda:0' for 'cuda': it would ask a device guard for the index, and there is
    none.
    """
    def called(*values: Any, **named: Any) -> Any:
        return function(*map(indexed, values),
                        **{key: indexed(value) for key, value in named.items()})

    def indexed(value: Any) -> Any:
        return (CUDA if isinstance(value, (str, torch.device))
                and torch.device(value) == torch.device('cuda') else value)
    return called


def _from_data(function: Any) -> Any:
    """torch.tensor, in two steps: its copy to the device is hidden from modes."""
    def called(data: Any, *, device: Any = None, **named: Any) -> Any:
        return function(data, **named) if device is None else function(data, **named).to(device)
    return called


def _landed(function: Any) -> Any:
    """What reads a tensor's memory without an operation, after a look at whether a copy still fills
    it.
    """
    def called(tensor: torch.Tensor, *values: Any, **named: Any) -> Any:
        _current().check_landed([tensor])
        return function(tensor, *values, **named)
    return called


@contextlib.contextmanager
def device(name: str = 'pretend GPU', bf16: bool = True, devices: int = 1,
           old_pinning: bool = False) -> Iterator[Gpu]:
    """While it lasts, this process has a GPU. name: what it is called; bf16: whether it computes in
    bf16; old_pinning: as torch 2.6 to 2.9.
    """
    global _gpu
    _gpu, autocast = Gpu(), torch.autocast
    swap = torch.__future__.get_swap_module_params_on_conversion()
    # a module's parameters stay the ones that its optimizer has
    torch.__future__.set_swap_module_params_on_conversion(True)

    def patch(module: Any, **values: Any) -> None:
        for key, value in values.items():
            stack.enter_context(mock.patch.object(module, key, value))

    with contextlib.ExitStack() as stack:
        patch(torch.cuda, is_available=lambda: True, device_count=lambda: devices,
              set_device=_set_device, Event=Event, current_device=lambda: _current().current_device,
              get_device_name=lambda device=None: name,
              is_bf16_supported=lambda including_emulation=True: bf16,
              max_memory_allocated=lambda device=None: 0,
              get_device_capability=lambda device=None: (9, 0), empty_cache=lambda: None,
              _lazy_init=lambda: None, synchronize=lambda device=None: _current().wait())
        patch(torch.accelerator, is_available=lambda: True,
              current_device_index=lambda: _current().current_device,
              set_device_index=lambda index: None,  # of the thread that pins
              current_accelerator=lambda check_available=False: torch.device('cuda'),
              current_stream=lambda device=None: mock.Mock(is_capturing=lambda: False))
        patch(torch, Generator=_Generator, autocast=lambda kind, dtype=None, **options: (
            _Autocast(dtype) if kind == 'cuda' else autocast(kind, dtype=dtype, **options)))
        patch(torch.Tensor, to=_with_index(torch.Tensor.to))
        patch(torch, tensor=_from_data(torch.tensor), as_tensor=_from_data(torch.as_tensor))
        patch(torch.Tensor, numpy=_landed(torch.Tensor.numpy), tolist=_landed(torch.Tensor.tolist),
              __array__=_landed(torch.Tensor.__array__))
        patch(torch.Tensor, pin_memory=_pin, is_pinned=lambda tensor,
              *values: _current().is_pinned(tensor))
        if old_pinning:
            patch(data_utils.pin_memory, pin_memory=_pin_as_before_2_10)
        stack.enter_context(_Mode())
        stack.enter_context(_Generators())
        try:
            yield _gpu
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swap)
            _gpu = None
