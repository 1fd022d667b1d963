"""What the machine allows, by the kernel's files: processor time, bf16, the NVIDIA driver.

root: where these files are looked for; tests give another.
"""
import contextlib
import math
import os
import re
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path('/')

# CUDA of a wheel -> the oldest driver that serves it on Linux (NVIDIA's CUDA compatibility guide:
# minor version compatibility), and the wheels of torch to take where the driver is no newer
DRIVERS = {13: (580, 'cu130'), 12: (525, 'cu126')}
# what oneDNN may be kept to (ONEDNN_MAX_CPU_ISA) that multiplies no bf16
WITHOUT_BF16 = {'SSE41', 'AVX', 'AVX2', 'AVX2_VNNI', 'AVX2_VNNI_2', 'AVX512_CORE',
                'AVX512_CORE_VNNI'}
# compute capability, Turing's; torch's cu126 wheels serve cards from 5.0 on
OLDEST_OF_CUDA_13 = 7, 5
WHEELS = 'https://download.pytorch.org/whl'


def quota(root: Path = ROOT) -> float:
    """Return the processor cores' worth of time that control groups allow; inf without a limit.

    That is the least of this process's own group and all above it, of version 1 (cpu.cfs_quota_us)
    and 2 (cpu.max).
    """
    limits = [math.inf]
    for line in _read(root / 'proc/self/cgroup').splitlines():
        _, controllers, group = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        for mount in (controllers, 'cpu') if controllers else ('', 'unified'):
            top = root / 'sys/fs/cgroup' / mount
            # within a container its own group may be what is mounted: then the folders that `group`
            # names are not there
            limits += [_limit(top / str(each).lstrip('/'))
                       for each in (PurePosixPath(group), *PurePosixPath(group).parents)]
    return min(limits)


def _limit(folder: Path) -> float:
    """Of one control group."""
    allowed, _, period = _read(folder / 'cpu.max').partition(' ')
    if not allowed:
        allowed, period = _read(folder / 'cpu.cfs_quota_us'), _read(folder / 'cpu.cfs_period_us')
    return (int(allowed) / int(period) if allowed.strip().isdigit() and period.strip().isdigit()
            and int(period) else math.inf)


def _read(path: Path) -> str:
    """'' where there is no such file."""
    try:
        return path.read_text(encoding='utf-8', errors='replace')
    except OSError:
        return ''


def has_bf16(root: Path = ROOT) -> bool:
    """Whether the processor multiplies bf16 itself: x86 with AVX-512 BF16 or AMX, on Linux.

    False where there is no telling, and where the environment keeps oneDNN from it.
    """
    flags = _read(root / 'proc/cpuinfo').split()
    return (not {'avx512_bf16', 'amx_bf16'}.isdisjoint(flags)
            and os.environ.get('ONEDNN_MAX_CPU_ISA', '').upper() not in WITHOUT_BF16)


def driver(root: Path = ROOT) -> str | None:
    """Version of the NVIDIA driver that is loaded ('535.183.01'); None without one."""
    found = re.search(r'Kernel Module.*?\s(\d+\.\d+(?:\.\d+)*)',
                      _read(root / 'proc/driver/nvidia/version'))
    if not found and (root / 'dev/dxg').exists():  # WSL, where the driver is that of Windows
        with contextlib.suppress(OSError):  # no nvidia-smi: another maker's card
            words = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
            said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
            found = re.match(r'(\d+\.\d+(?:\.\d+)*)', said)
    return found.group(1) if found else None


def no_cuda(torch_version: str, cuda: str | None, root: Path = ROOT) -> str | None:
    """Return why torch finds no CUDA device although an NVIDIA driver is loaded, and the remedy.

    cuda: torch.version.cuda.
    None where that is as it should be. A driver that is too old, or cards that are not handed on to
    a container, would else mean days on the CPU that nobody asked for.
    """
    version = driver(root)
    if cuda is None or version is None or os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        return None
    needed = DRIVERS.get(int(cuda.split('.')[0]), (0, ''))[0]
    message = f'torch {torch_version} finds no CUDA device, though an NVIDIA driver is there: '
    if int(version.split('.')[0]) >= needed:
        return message + (f'{version}, which is new enough for CUDA {cuda}. Does nvidia-smi list a '
                          f'card? A container is given '
                          'them by docker run --gpus all')
    fitting = next((f', or install the build that fits: {install(wheel)}'
                    for oldest, wheel in DRIVERS.values()
                    if int(version.split('.')[0]) >= oldest), '')
    return (f'{message}{version}, and CUDA {cuda} needs {needed} or newer. '
            f'Update the driver{fitting}')


def install(wheel: str) -> str:
    """The command that makes the environment anew, with torch's build `wheel` ('cu126')."""
    return f'rm -rf .venv; PIP_EXTRA_INDEX_URL={WHEELS}/{wheel} bash script/make_env.sh'
