"""The golden tests under other instruction sets and numbers of threads than torch takes here of
itself:

    python -m tests.cpu_settings [pytest's arguments]

torch, oneDNN and MKL add up in another order under each. What this CPU does not have is left out,
by name.
Marked golden is what such an order can change: networks, steps, losses, walks. The stages made of
them are not run again.
"""
import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from misc.parsing import Parser

X86 = ('DEFAULT', 'AVX2', 'AVX512')  # torch's kernels, each CPU has those up to its own
ONE_THREAD, TWO_THREADS = {'OMP_NUM_THREADS': '1'}, {'OMP_NUM_THREADS': '2'}
# kernels they need, and the environment; torch itself does not look whether the CPU has them
SETTINGS = (
    ('DEFAULT', {'ATEN_CPU_CAPABILITY': 'default', 'ONEDNN_MAX_CPU_ISA': 'SSE41',
                 'MKL_ENABLE_INSTRUCTIONS': 'SSE4_2', **ONE_THREAD}),
    ('AVX2', {'ATEN_CPU_CAPABILITY': 'avx2', 'ONEDNN_MAX_CPU_ISA': 'AVX2',
              'MKL_ENABLE_INSTRUCTIONS': 'AVX2', **TWO_THREADS}),
    ('AVX512', {'ATEN_CPU_CAPABILITY': 'avx512', 'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE',
                'MKL_ENABLE_INSTRUCTIONS': 'AVX512', **ONE_THREAD}),
)
ELSEWHERE = ({'ATEN_CPU_CAPABILITY': 'default', **ONE_THREAD}, ONE_THREAD,
             {'ATEN_CPU_CAPABILITY': 'default', **TWO_THREADS})


def settings(machine: str, capability: str) -> tuple[list[dict[str, str]], list[str]]:
    """(environments to run under, kernels left out) on a CPU of `machine` ('x86_64', ...) with
    torch's kernels `capability`.
    """
    if machine not in ('x86_64', 'AMD64') or capability not in X86:
        return list(ELSEWHERE), list(X86[1:])
    has = X86[:X86.index(capability) + 1]
    found = [environment for kernels, environment in SETTINGS if kernels in has]
    if len(found) < len(SETTINGS):
        found.append(ONE_THREAD)
    return found, [kernels for kernels in X86 if kernels not in has]


def main(words: list[str]) -> int:
    """Exit code: 0 where the golden tests pass under each."""
    words = Parser(prog='python -m tests.cpu_settings', description=__doc__,
                   formatter_class=argparse.RawDescriptionHelpFormatter).parse_known_args(words)[1]
    found, left_out = settings(platform.machine(), torch.backends.cpu.get_cpu_capability())
    if left_out:
        print(f'this CPU ({platform.machine()}) has no {" and no ".join(left_out)}: left out')
    failed = []
    for environment in found:
        name = ' '.join(f'{key}={value}' for key, value in environment.items())
        print(f'golden tests under {name}', flush=True)
        code = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-m', 'golden', *words],
                              cwd=Path(__file__).parent.parent,
                              env=os.environ | environment).returncode
        if code not in (0, 5):  # 5: none among the tests asked for
            failed.append(name)
    for name in failed:
        print(f'error: golden tests fail under {name}', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
