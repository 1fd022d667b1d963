"""How far the comparisons of tests/authors.py may be off: MARGIN times what rounding does.

fp32: the largest error seen on an Intel Xeon (Sapphire Rapids, torch 2.13) under
ATEN_CPU_CAPABILITY default, avx2 and avx512, ONEDNN_MAX_CPU_ISA SSE41, AVX2 and the CPU's own
(AVX-512 with AMX), one thread and two, a batch as a whole and in two
parts. tf32 and bf16: from the same CPU, with convolutions of numbers rounded to TF32
(authors.RoundedConvolutions), and in
torch's autocast. fp16: its forward passes were measured in the same way; its steps are given twice
TF32's, which has as many digits. No GPU was at hand. Where a limit is wide, authors.steps says why.
`script/check_gpu.py --device cpu --parts networks steps` prints the errors of the machine it runs
on.
"""
from collections.abc import Mapping

MARGIN = 4
# sums of float64, and what nothing may touch
EXACT = {'learning rates': 1e-12, 'weights before': 1e-12, 'fixed weights': 0.0}

# of the largest value: features, logits, activations, edges, displacements
FORWARD = {mode: MARGIN * seen for mode, seen in {'fp32': 2.5e-6, 'tf32': 1.6e-3, 'bf16': 1.9e-2,
                                                  'fp16': 1.8e-3}.items()}

_STEPS = {  # of fp32, tf32, bf16
    'cam': {
        'losses': (4.6e-6, 2.5e-4, 3.7e-3), 'weights': (1.5e-5, 3.4e-4, 1.6e-3),
        'worst tensor': (3.2e-4, 1.9e-3, 7.6e-3), 'magnitudes': (4.8e-4, 1.1e-2, 4.5e-2)},
    'amn': {
        'losses': (7e-7, 1.9e-4, 2.5e-3), 'weights': (3.7e-5, 1.8e-3, 4e-3),
        'worst tensor': (1.8e-3, 1.9e-2, 9.4e-2), 'magnitudes': (2.4e-2, 2.1, 2.6)},
    'irn': {
        'losses': (5.6e-7, 3.9e-5, 5e-4), 'parts of the loss': (3.8e-6, 2.4e-3, 5e-3),
        'weights': (6.9e-5, 1.7e-3, 4.7e-3),
        'worst tensor': (5.9e-3, 1.1e-2, 2.9e-2), 'magnitudes': (9.9e-3, 4e-2, 6.7e-2),
        'mean displacement': (1.5e-2, 1.1e-1, 1.5e-1)}}
STEPS: dict[str, dict[str, dict[str, float]]] = {
    name: {mode: EXACT | {what: factor * seen[number] for what, seen in measured.items()}
           for mode, number, factor in (('fp32', 0, MARGIN), ('tf32', 1, MARGIN),
                                        ('bf16', 2, MARGIN), ('fp16', 1, 2 * MARGIN))}
    for name, measured in _STEPS.items()}

# of a stage's files: activations, of the largest; label maps and instances, share of the pixels.
# Not measured but for fp32's, which tests/test_stages.py holds, too: the others are estimates from
# the forward passes, wide on purpose
FILES = {mode: {'activations': activation, 'pixels': pixels} for mode, (activation, pixels) in {
    'fp32': (1e-3, 1e-3), 'tf32': (2e-2, 1e-2), 'bf16': (2e-1, 5e-2), 'fp16': (2e-2, 1e-2)}.items()}


def exceeded(errors: Mapping[str, float],
             limits: Mapping[str, float] | float) -> dict[str, tuple[float, float]]:
    """The errors beyond their limits (or beyond the one limit), by name: (error, limit). nan is
    beyond any.
    """
    limit = {name: limits if isinstance(limits, float) else limits[name] for name in errors}
    return {name: (error, limit[name]) for name, error in errors.items()
            if not error <= limit[name]}
