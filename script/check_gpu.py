"""What a person with a GPU runs first: does it compute what the authors' code and a CPU do, and how
fast?

    python script/check_gpu.py [--device cuda:0] [--parts networks steps ...] [--quick]

Needs no data. Prints a text to paste into an issue: the machine; each network's forward pass and
three training steps against the authors' numbers, in fp32 with and without TF32, bf16 and fp16,
each error beside its limit (tests/tolerances.py); the files of every inference stage against the
CPU's; with several GPUs the same by two processes; images a second of each stage; a verdict. Ends
with 1 where anything is off. Without a GPU it does what a CPU can.
"""
import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import misc  # noqa: E402, F401 -- before torch

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402

import run_sample  # noqa: E402
from misc import ending, machine, torchutils  # noqa: E402
from misc.files import activations, label_maps, weights  # noqa: E402
from misc.method import instances  # noqa: E402
from misc.parsing import Parser  # noqa: E402
from misc.pyutils import UserError  # noqa: E402
from net import resnet50_deeplab  # noqa: E402
from tests import authors, tiny, tolerances  # noqa: E402
from tests.formula import formula_state  # noqa: E402

TREE = authors.GOLDEN / 'tree'
IDS = [path.stem for path in sorted((TREE / 'JPEGImages').glob('*.jpg'))]
FOLDERS = {'cam': 'make_cam', 'ir_label': 'cam_to_ir_label', 'amn_cam': 'make_amn_cam',
           'amn_ir_label': 'amn_cam_to_ir_label',
           # and the stage that writes it
           'sem_seg': 'make_sem_seg', 'ins_seg': 'make_ins_seg', 'seg': 'make_seg'}
# read activations: a command of their own, so that they read the CPU's
ALONE = ('sem_seg', 'ins_seg')
FAILED = float('inf')


@dataclasses.dataclass
class Check:
    """One comparison: its error, relative to the size of what is compared, and the largest that
    rounding explains.
    """

    part: str
    what: str
    error: float
    limit: float
    note: str = ''

    @property
    def passed(self) -> bool:
        return self.error <= self.limit  # not for nan

    def __str__(self) -> str:
        return (f'{"ok  " if self.passed else "FAIL"} {self.part:<12} {self.what:<44} '
                f'{self.error:8.1e} of {self.limit:7.1e}'
                f'{"  " * bool(self.note)}{self.note}')


# the machine

def facts(device: torch.device | str) -> Iterator[str]:
    """What the rest depends on, a line each."""
    yield f'python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}'
    yield (f'CPU: {cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, {torchutils.cores()} '
           f'cores, '
           f'{torch.get_num_threads()} threads')
    with contextlib.suppress(FileNotFoundError):  # no such place on macOS
        shared = shutil.disk_usage('/dev/shm')
        yield f'/dev/shm: {shared.free / 2 ** 20:.0f} of {shared.total / 2 ** 20:.0f} MB free'
    yield (f'driver: {machine.driver() or "no NVIDIA driver"}; CUDA of this torch: '
           f'{torch.version.cuda or "none (a CPU build)"}')
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield (f'GPU {number}: {card.name}, architecture {card.major}.{card.minor}, '
               f'{free / 2 ** 30:.1f} of '
               f'{total / 2 ** 30:.1f} GB free, bf16 {"yes" if card.major >= 8 else "no"}')
    if torch.cuda.is_available():
        yield (f'this torch has kernels for {" ".join(torch.cuda.get_arch_list())}, cuDNN '
               f'{torch.backends.cudnn.version()}')
    yield f'checked: {device}'


def cpu_name() -> str:
    with contextlib.suppress(FileNotFoundError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


# against the authors' numbers

def modes(device: torch.device, quick: bool) -> list[str]:
    """The ways to compute that `device` has."""
    if quick:
        return ['fp32']
    found = []
    for mode in authors.MODES:
        with contextlib.suppress(UserError):
            torchutils.choose_precision('fp32' if mode == 'tf32' else mode, device)
            found.append(mode)
    if device.type == 'cuda' and torch.cuda.get_device_properties(device).major < 8:
        found.remove('tf32')
    return found


def networks(args: argparse.Namespace) -> Iterator[Check]:
    """Every network's forward pass, ready for inference as the stages have it."""
    for name in authors.NETWORKS:
        for mode in modes(args.device, args.quick):
            net = authors.prepared(name, args.device, mode)
            for what, error in authors.forward(name, net, args.device, mode).items():
                yield Check('forward', f'{mode} {what}', error, tolerances.FORWARD[mode])


def steps(args: argparse.Namespace, measured: dict | None = None,
          part: str = 'three steps') -> Iterator[Check]:
    """Three training steps of every network. measured: errors by 'mode name', where another process
    measured them.
    """
    for name in authors.NETWORKS:
        for mode in modes(args.device, args.quick):
            errors = (authors.steps(name, args.device, mode) if measured is None
                      else measured[f'{mode} {name}'])
            for what, error in errors.items():
                yield Check(part, f'{mode} {name}: {what}', error,
                            tolerances.STEPS[name][mode][what])


# files

def write_weights(folder: Path, quick: bool) -> None:
    """Weights for every stage: by formula; drawn, of tiny networks, where it is to be quick."""
    torch.manual_seed(0)
    for name, module in (authors.NETWORKS | {'seg': resnet50_deeplab}).items():
        if quick:
            net = importlib.import_module(tiny.NETWORKS[f'{name}_network']).Net(20)
        else:
            net = module.Net(20)
            net.load_state_dict(formula_state(net))
        weights.save_state(net, folder / f'{name}.pth')


def command_line(base: Path, out: Path, inputs: Path, made: list[str], device: torch.device,
                 precision: str, workers: int, quick: bool) -> list[str]:
    """The command line that makes folders `made` in `out`, reading the others in `inputs`."""
    words = ['--voc12_root', TREE, '--train_list', 'train_aug', '--infer_list', 'train',
             '--seg_list', 'val',
             '--num_workers', workers, '--device', device, '--precision', precision, '--pretrained',
             'none',
             '--log_name', out / 'run', '--scores_file', out / 'scores.jsonl', '--overwrite',
             'True', '--seg_network', 'net.resnet50_deeplab', '--seg_scales', '1.0']
    for name in (*authors.NETWORKS, 'seg'):
        words += [f'--{name}_weights_name', base / f'{name}.pth']
    for name in FOLDERS:
        words += [f'--{name}_out_dir', (out if name in made else inputs) / name]
    if quick:
        for flag, value in tiny.NETWORKS.items():
            words += [f'--{flag}', value]
        words += ['--cam_scales', '1.0', '0.5', '--sem_seg_canvas', '0', '--exp_times', '3']
    return [str(word) for word in (*words, *(f'--{FOLDERS[name]}_pass' for name in made))]


def make(base: Path, out: Path, inputs: Path, made: list[str], device: torch.device, mode: str,
         workers: int, quick: bool) -> None:
    """Run these stages here. Raises RuntimeError with what they said where they fail."""
    said = io.StringIO()
    with authors.computing(mode,
                           device) as precision, contextlib.redirect_stdout(
                               said), contextlib.redirect_stderr(said):
        code = run_sample.main(command_line(base, out, inputs, made, device, precision, workers,
                                            quick))
    if code != 0:
        raise RuntimeError(said.getvalue().strip().splitlines()[-1])


def files(args: argparse.Namespace) -> Iterator[Check]:
    """The files of every inference stage: the CPU's against the authors', then this device's, with
    workers, against the CPU's.

    Each stage reads what the CPU made, so that its error is its own. The refined seeds are made by
    the CPU alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_weights(base, args.quick)
        make(base, base / 'cpu', base / 'cpu', list(FOLDERS), authors.CPU, 'fp32', 0, args.quick)
        if not args.quick:
            for name in ('cam', 'ir_label', 'amn_cam', 'amn_ir_label', 'sem_seg'):
                yield files_check(name, base / 'cpu', None, 'fp32', 'CPU against the authors')
        for mode in modes(args.device, args.quick):
            out = base / mode
            for made in (['cam', 'amn_cam', 'seg'], list(ALONE)):
                make(base, out, base / 'cpu', made, args.device, mode, 2, args.quick)
                for name in made:
                    yield files_check(name, out, base / 'cpu', mode,
                                      f'{mode} {args.device} against CPU')
        if torch.cuda.device_count() > 1 and args.device.type == 'cuda':
            out = base / 'processes'
            for made in (['cam', 'amn_cam', 'seg'], list(ALONE)):
                words = command_line(base, out, base / 'cpu', made, torch.device('cuda'), 'fp32', 2,
                                     args.quick)
                torchrun(['run_sample.py', *words])
                for name in made:
                    yield files_check(name, out, base / 'cpu', 'tf32', '2 processes against CPU')


def files_check(name: str, ours: Path, theirs: Path | None, mode: str, what: str) -> Check:
    """Of one folder: the largest difference of activations, of the largest; else the share of
    pixels that differ.
    """
    errors, equal = [], 0
    for image_id in IDS:
        mine, other = (read(name, folder, image_id) for folder in (ours, theirs))
        if name in ('cam', 'amn_cam'):
            errors += [float(np.abs(a - b.astype(np.float32)).max() / b.max())
                       for a, b in zip(mine, other, strict=True)]
        else:
            errors.append(float((mine != other).mean()))
        equal += all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True))
    kind = 'activations' if name in ('cam', 'amn_cam') else 'pixels'
    return Check('files', f'{FOLDERS[name]}: {what}', max(errors), tolerances.FILES[mode][kind],
                 f'{kind}; {equal} of {len(IDS)} equal')


def read(name: str, folder: Path | None, image_id: str) -> np.ndarray | tuple[np.ndarray, ...]:
    """What a stage left of an image: strided and high_res activations, a label map, or (class,
    number) of instances. folder:
    None for the authors'."""
    if name in ('cam', 'amn_cam'):
        if folder is None:
            stored = np.load(authors.GOLDEN / 'expected' / f'{image_id}_activations.npz')
            return stored[name], stored[f'{name}_high_res']
        activation = activations.load(folder / name, image_id)
        return activation.strided, activation.high_res
    if name == 'ins_seg':
        found = instances.load(folder / name, image_id)
        return found.instance_map
    return label_maps.load((folder or authors.GOLDEN / 'expected') / name / f'{image_id}.png')


# two processes

def torchrun(words: list[str]) -> None:
    """Run by two processes. Raises RuntimeError with the end of what they said where they fail."""
    start = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
             '--']
    done = subprocess.run([*start, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise RuntimeError(f'{words[0]} by two processes ended with {done.returncode}; its last '
                           f'words are above')


def processes(args: argparse.Namespace) -> Iterator[Check]:
    """The three steps by two processes that share each batch: NCCL on GPUs, gloo on a CPU."""
    if args.device.type == 'cuda' and torch.cuda.device_count() < 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'errors.json'
        torchrun([str(Path(__file__).resolve()), '--device', args.device.type, '--as_process',
                  str(path), *['--quick'] * args.quick])
        yield from steps(args, json.loads(path.read_text()), 'two processes')


def as_process(args: argparse.Namespace) -> None:
    """What each of the two does."""
    args.device = torchutils.join_processes(args.device)
    measured = {f'{mode} {name}': authors.steps(name, args.device, mode)
                for name in authors.NETWORKS for mode in modes(args.device, args.quick)}
    if torchutils.is_main():
        Path(args.as_process).write_text(json.dumps(measured))
    torchutils.leave_processes()


# speed

def speed(args: argparse.Namespace) -> Iterator[str]:
    """Images a second of each stage, by script/benchmark.py; small images on a CPU."""
    if args.quick:
        yield 'speed: left out by --quick'
        return
    words = [] if args.device.type == 'cuda' else ['--size', '94', '125', '--crop', '128']
    wanted = [mode for mode in modes(args.device, args.quick) if mode in ('fp32', 'bf16')]
    with tempfile.TemporaryDirectory() as folder:
        for precision in wanted:
            path = Path(folder) / 'speed.json'
            done = subprocess.run(
                [sys.executable, 'script/benchmark.py', '--device', str(args.device), '--precision',
                 precision, '--repeat', '2', '--no_plain', '--json', str(path), '--stages',
                 *STAGES, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
            if done.returncode != 0:
                sys.stderr.write(done.stderr)
                raise RuntimeError(f'script/benchmark.py ended with {done.returncode}')
            result = json.loads(path.read_text())
            yield (f'{precision}, images of {" x ".join(map(str, result["arguments"]["size"]))}, '
                   f'crops of '
                   f'{result["arguments"]["crop"]}; matrix product {result["matrix_gflops"]:.0f} '
                   f'GFLOP/s')
            for stage in result['stages']:
                yield (f'  {stage["stage"]:<14} {1 / stage["seconds"]:8.2f} images/s  '
                       f'{stage["peak_memory_gb"]:5.1f} GB')


STAGES = ('train_cam', 'make_cam', 'refine', 'train_amn', 'make_amn_cam', 'train_irn',
          'make_sem_seg', 'make_ins_seg', 'train_seg', 'make_seg')  # of script/benchmark.py
PARTS = {'networks': networks, 'steps': steps, 'files': files, 'processes': processes,
         'speed': speed}


def run_checks(args: argparse.Namespace) -> list[Check]:
    """Every part asked for; gives its comparisons. A part that ends with an error is one that
    failed: the others still run. Of a want of the machine the remedy is told.
    """
    found = []
    for part in (name for name in PARTS if name in args.parts):
        since = time.monotonic()
        try:
            with ending.explained(remedy):
                for line in PARTS[part](args):
                    print(line, flush=True)
                    if isinstance(line, Check):
                        found.append(line)
        except UserError as error:
            found.append(Check(part, 'ended with an error', FAILED, 0.0, str(error)))
            print(found[-1], flush=True)
        # a GPU nobody has seen: its report is what this is for
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            found.append(Check(part, f'{type(error).__name__}: {first_line(error)}', FAILED, 0.0))
            print(found[-1], flush=True)
        print(f'     {part}: {time.monotonic() - since:.0f} s', flush=True)
    return found


def remedy(want: str) -> str:
    return '--quick, or fewer --parts'


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [''])[0]


def main(words: list[str] | None = None) -> int:
    parser = Parser(description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='auto',
                        help='auto (the first GPU, else the CPU), cpu, cuda or cuda:N')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS),
                        help='what to check [all]')
    parser.add_argument('--quick', action='store_true',
                        help='fp32 alone, tiny networks for the files, no speed')
    parser.add_argument('--as_process', help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    return ending.run(lambda: run(args), remedy)


def run(args: argparse.Namespace) -> int:
    """Print what there is, what was found and the verdict. Returns the exit code."""
    if args.as_process:
        args.device = torchutils.choose_device(args.device)
        as_process(args)
        return 0
    print('---- paste from here into an issue ----')
    try:
        args.device = torchutils.choose_device(args.device)
    except UserError as error:  # a driver too old, say: that is what is to be pasted
        for line in (*facts(args.device), f'verdict: nothing was compared: {error}',
                     '---- to here ----'):
            print(line)
        return 1
    for line in facts(args.device):
        print(line)
    if args.device.type == 'cpu':
        print(f'{"the GPU is left out" if torch.cuda.is_available() else "no GPU"}: what follows '
              f'is what the CPU can show; TF32 is imitated by rounding')
    found = run_checks(args)
    wrong = [check for check in found if not check.passed]
    if not found:
        print(f'verdict: nothing was compared ({args.device})')
    else:
        print(f'verdict: {len(wrong)} of {len(found)} comparisons FAILED' if wrong else
              f'verdict: all {len(found)} comparisons within their limits ({args.device})')
    for check in wrong:
        print(check)
    print('---- to here ----')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
