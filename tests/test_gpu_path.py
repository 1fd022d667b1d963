"""The way over a GPU, on a machine without one (pretend_cuda.py): every stage with the CPU's bytes,
planted faults, how often the host waits.
"""
import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from misc import torchutils
from misc.data import datasets
from misc.files import activations
from misc.method import maps, walking
from net import resnet50, resnet50_amn
from step import make_cam, segment, show
from tests import count_launches, pretend_cuda
from tests.conftest import GOLDEN, Command
from tests.test_pipeline import IDS, files
from tests.tiny import QUICK

TRAININGS = ('train_cam', 'train_amn', 'train_irn', 'train_seg')
INFERENCE = ('make_cam', 'cam_to_ir_label', 'make_amn_cam', 'amn_cam_to_ir_label', 'make_sem_seg',
             'make_ins_seg', 'make_seg')
MAKING = [stage for pair in zip(TRAININGS[:3], (INFERENCE[:2], INFERENCE[2:4], INFERENCE[4:6]),
                                strict=True)
          for stage in (pair[0], *pair[1])] + ['train_seg', 'make_seg']
WEIGHTS = {'train_cam': 'cam', 'train_amn': 'amn', 'train_irn': 'irn', 'train_seg': 'seg'}


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """For both devices: how sums round depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def made(one_thread, tmp_path_factory):
    """Every stage on the CPU."""
    command = Command(GOLDEN / 'tree', tmp_path_factory.mktemp('made'))
    assert command(*MAKING, device='cpu', **QUICK) == 0
    return command


def copied(command, folder, without=()):
    """A copy of a run in which some of its stages' files are not there."""
    fresh = Command(command.tree, Path(shutil.copytree(command.folder, folder)))
    for stage in without:
        for path in fresh.folder.glob(f'{WEIGHTS[stage]}.*' if stage in WEIGHTS
                                      else f'{stage.removeprefix("make_")}/*'):
            path.unlink()
    return fresh


def differing(ours, theirs):
    ours, theirs = files(ours), files(theirs)
    return sorted(name for name in ours.keys() | theirs.keys()
                  if ours.get(name) != theirs.get(name))


# the same bytes

@pytest.mark.parametrize('stage', MAKING)
def test_a_stage_makes_the_cpus_files(made, tmp_path, stage):
    """Each alone, from the CPU's inputs, with old pinning: a tuple that was read comes as a list.
    """
    command = copied(made, tmp_path / 'run')
    with pretend_cuda.device(old_pinning=True) as gpu:
        assert command(stage, device='cuda', overwrite=True, **QUICK) == 0
    assert differing(command.folder, made.folder) == []
    assert bool(gpu.total('kernel')) == ('ir_label' not in stage)
    assert gpu.total('copy') == 0


def test_stages_without_a_network_say_the_same(made, tmp_path):
    """The scores, the analysis, the sheet and the report, where a GPU is asked for."""
    stages = [f'eval_{name}' for name in ('cam', 'ir_label', 'amn_cam', 'amn_ir_label', 'sem_seg',
                                          'ins_seg', 'seg')]
    stages += ['analyze_threshold', 'draw_sheet', 'report']
    runs = []
    for device in ('cpu', 'cuda'):
        runs.append(command := copied(made, tmp_path / device))
        with pretend_cuda.device(
            old_pinning=True) if device == 'cuda' else contextlib.nullcontext():
            assert command(*stages, device=device, **QUICK) == 0
    assert differing(*(command.folder for command in runs)) == []
    scores = [{stage: {name: value for name, value in line.items() if name != 'time'}
               for stage, line in command.scores().items()} for command in runs]
    assert scores[0] == scores[1] and len(scores[0]) == 7


FLAGS = {
    'batches': {'inference_batch_size': 3, 'cam_dtype': 'float16'},
    'kept': {'walked_out_dir': 'walked', 'cam_dtype': 'uint8', 'sem_seg_canvas': 0,
             'cam_scales': [1.0]},
    'segmentation': {'seg_crf': True, 'seg_flip': True, 'seg_scales': [1.0, 0.5],
                     'ins_seg_coco_json': 'instances.json'}}


@pytest.mark.parametrize('flags', FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize('old_pinning', [False, True], ids=['new', 'old'])
def test_flags_and_workers_make_the_cpus_files(made, tmp_path, flags, old_pinning):
    if old_pinning and 'walked_out_dir' in flags:
        pytest.skip('the same as with new pinning')
    stages = {'batches': INFERENCE[:4], 'kept': (*INFERENCE[:5], INFERENCE[4]),
              'segmentation': INFERENCE[5:]}[next(name for name, each in FLAGS.items()
                                                  if each is flags)]
    runs = []
    for device in ('cpu', 'cuda'):
        runs.append(command := copied(made, tmp_path / device))
        named = {name: command.folder / value if str(value) in ('walked', 'instances.json')
                 else value
                 for name, value in flags.items()}
        with pretend_cuda.device(
            old_pinning=old_pinning) if device == 'cuda' else contextlib.nullcontext():
            assert command(*stages, device=device, num_workers=2 if device == 'cuda' else 0,
                           overwrite=True, **QUICK | named) == 0
    assert differing(*(command.folder for command in runs)) == []
    assert differing(runs[0].folder, made.folder)  # the flags do something


@pytest.mark.slow
@pytest.mark.parametrize('stage', TRAININGS)
def test_trainings_in_parts_with_workers_make_the_cpus_files(made, tmp_path, stage):
    runs = []
    for device in ('cpu', 'cuda'):
        runs.append(command := copied(made, tmp_path / device, [stage]))
        with pretend_cuda.device(
            old_pinning=True) if device == 'cuda' else contextlib.nullcontext():
            assert command(stage, device=device, num_workers=2 if device == 'cuda' else 0,
                           accumulate=2, save_every=1e-9, **QUICK) == 0
    assert differing(*(command.folder for command in runs)) == []


@pytest.mark.slow
def test_repeats_make_the_cpus_files(made, tmp_path):
    runs = []
    for device in ('cpu', 'cuda'):
        runs.append(command := copied(made, tmp_path / device))
        with pretend_cuda.device() if device == 'cuda' else contextlib.nullcontext():
            assert command('train_cam', 'make_cam', device=device, repeat=2,
                           work_dir=command.folder, **QUICK) == 0
    assert differing(*(command.folder for command in runs)) == []
    assert any(name.startswith('seed_1/') for name in files(runs[1].folder))


@pytest.mark.slow
@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_every_stage_in_half_precision(made, tmp_path, precision):
    command = copied(made, tmp_path / 'run')
    with pretend_cuda.device():
        assert command(*MAKING, device='cuda', precision=precision, overwrite=True, **QUICK) == 0
    for image_id in IDS:
        ours, theirs = (activations.load(folder / 'cam', image_id).high_res
                        for folder in (command.folder, made.folder))
        assert 0 < np.abs(ours - theirs).max() < 0.2


def test_only_kernels_that_do_not_vary(made, tmp_path):
    """What torch refuses then is refused here too; the training loss of another objective goes
    another way.
    """
    command = copied(made, tmp_path / 'run')
    with pretend_cuda.device():
        assert command('train_cam', 'train_seg', device='cuda', deterministic=True, seg_loss='ce',
                       overwrite=True, **QUICK) == 0
        assert torch.are_deterministic_algorithms_enabled()
    assert command('make_cam', device='cpu', deterministic=True, **QUICK) == 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_pool_that_does_not_vary_is_the_pool():
    x = torch.randn(2, 3, 11, 14, generator=torch.Generator().manual_seed(0)).relu()
    for ceil_mode in (False, True):
        pool, found = resnet50.MaxPool(3, 2, 1, ceil_mode=ceil_mode), []
        for wanted in (False, True):
            torchutils.set_deterministic(wanted)
            try:
                pooled = pool(leaf := x.clone().requires_grad_())
                (pooled * torch.arange(pooled.numel()).view_as(pooled)).sum().backward()
            finally:
                torchutils.set_deterministic(False)
            found.append((pooled.detach(), leaf.grad))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_the_commands_compute_where_they_are_told_to(made, tmp_path, monkeypatch):
    """--device cuda:1: memory is pinned for the second GPU, and the first is left alone."""
    image, shown = GOLDEN / 'tree' / 'JPEGImages' / f'{IDS[0]}.jpg', {}
    for device in ('cpu', 'cuda:1'):
        out = tmp_path / device.replace(':', '')
        words = [f'--{name}' if value is None else f'--{name}={value}' for name, value in {
            'labels': 'aeroplane', 'out': out / 'sheet.png', 'mask_out': out / 'mask.png',
            'device': device,
            **{f'{name}_weights_name': made.folder / f'{name}.pth'
               for name in ('cam', 'amn', 'irn')},
            **{name: QUICK[name] for name in ('cam_network', 'amn_network', 'irn_network',
                                              'exp_times')}}.items()]
        with pretend_cuda.device(devices=2) as gpu:
            assert show.main([str(image), *map(str, words)]) == 0
            assert segment.main([str(image), f'--out={out / "seg"}',
                                 f'--seg_weights_name={made.folder / "seg.pth"}',
                                 f'--device={device}', '--num_workers=0']) == 0
        assert gpu.pinned_on == ({1} if device == 'cuda:1' else set())
        shown[device] = {path.relative_to(out): path.read_bytes() for path in out.rglob('*.png')}
    assert shown['cpu'] == shown['cuda:1']
    assert len(shown['cpu']) == 4


# waiting

@pytest.mark.parametrize('stage', TRAININGS)
def test_a_training_step_waits_for_none_but_the_step_before(made, tmp_path, stage):
    command = copied(made, tmp_path / stage, [stage])
    flags = QUICK | {f'{WEIGHTS[stage]}_batch_size': 1, 'seg_steps': count_launches.STEPS}
    counts = count_launches.of_step(lambda: command(stage, device='cuda', **flags))
    # the second: of the step before the one that is queued
    assert (counts['wait'], counts['event']) == (0, 1)
    assert 0.9 * STEP[stage] < counts['kernel'] <= STEP[stage]


# kernels of a step of the small networks, and of four images; a tenth more is seen, and where a
# tenth less is enough, the number is to follow
STEP = {'train_cam': 160, 'train_amn': 120, 'train_irn': 1220, 'train_seg': 470}
MADE = {'make_cam': 390, 'make_amn_cam': 790, 'make_sem_seg': 400, 'make_ins_seg': 175,
        'make_seg': 370}


@pytest.mark.parametrize('stage', MADE)
def test_no_image_makes_the_host_wait(made, tmp_path, stage):
    """But in the thread that saves, and for an image that is not the last: there is always
    something to do.
    """
    command = copied(made, tmp_path / 'run')
    counts = count_launches.of_images(lambda: command(stage, device='cuda', overwrite=True,
                                                      **QUICK))
    # the last image's fields
    assert counts['wait'] <= (stage == 'make_ins_seg')
    assert 0.9 * MADE[stage] < counts['kernel'] <= MADE[stage]


def test_a_loss_that_is_not_finite_is_told_of_as_on_the_cpu(made, tmp_path, capsys):
    told = []
    for device in ('cpu', 'cuda'):
        command = copied(made, tmp_path / device, ['train_cam'])
        with pretend_cuda.device():
            assert command('train_cam', device=device,
                           **QUICK | {'cam_learning_rate': 1e30, 'cam_num_epoches': 3}) == 1
        told.append(capsys.readouterr().err.splitlines()[-1])
    assert told[0] == told[1]
    assert 'lower the learning rate' in told[0]


def test_the_walk_waits_for_nothing():
    with pretend_cuda.device() as gpu:
        device = torch.device('cuda', 0)
        edge, x = torch.rand(1, 9, 12).to(device), torch.rand(2, 9, 12).to(device)
        counted = []
        for exp_times in (2, 2, 3):
            before = gpu.total('wait'), gpu.total('kernel')
            walking.walk(x, edge, 1.0, 10, exp_times)
            assert gpu.total('wait') == before[0]
            counted.append(gpu.total('kernel') - before[1])
        assert counted[2] - counted[1] == 4  # a kernel a step
        assert counted[1] - 4 <= 48


# planted faults: each must be seen

def faulty_reading(image_id):
    return torch.ones(1, device='cuda')


def unfinished():
    copy = torch.ones(3).to('cuda').to('cpu', non_blocking=True)
    return copy.tolist()


def unfinished_in_c():
    copy = torch.ones(3).to('cuda').to('cpu', non_blocking=True)
    if not torch.allclose(torch.from_dlpack(copy), torch.ones(3)):
        raise AssertionError('read on the host')


def changed_under_a_copy():
    source = torch.ones(3).pin_memory()
    there = source.to('cuda', non_blocking=True)
    source.zero_()
    there.tolist()


def refused_kernel():
    torch.use_deterministic_algorithms(True)
    try:
        pooled = torch.nn.functional.max_pool2d(torch.ones(1, 1, 4, 4, device='cuda',
                                                           requires_grad=True), 3, 2, 1)
        pooled.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


FAULTS = {
    'two devices': (lambda: torch.ones(2, device='cuda') + torch.ones(2), 'at least two devices'),
    'a batch left on the host': (lambda: torch.nn.functional.conv2d(
        torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3, device='cuda')), 'at least two devices'),
    'a target on the host': (lambda: torch.ones(2).add_(torch.ones(2, device='cuda')),
                             'at least two devices'),
    "the CPU's generator": (lambda: torch.ones(2, device='cuda').bernoulli_(
        0.5, generator=torch.Generator().manual_seed(0)), "'cuda' device type for generator"),
    "the device's generator": (lambda: torch.ones(2).bernoulli_(
        0.5, generator=torch.Generator('cuda').manual_seed(0)), "'cpu' device type for generator"),
    'an array of the device': (lambda: torch.ones(2, device='cuda').numpy(), "can't convert cuda"),
    'numpy of the device': (lambda: np.asarray(torch.ones(2, device='cuda')), "can't convert cuda"),
    'an index of the device': (lambda: torch.ones(
        2)[torch.zeros(1, dtype=torch.long, device='cuda')], 'indices should be'),
    'a copy that is read too early': (unfinished, 'non_blocking copy need not have ended'),
    'the same unseen by Python': (unfinished_in_c, 'read on the host'),
    'pinned memory that is changed': (changed_under_a_copy, 'changed while it was copied'),
    'a kernel that varies': (refused_kernel, 'does not have a deterministic'),
    'the device in a worker': (lambda: list(datasets.read_ahead(faulty_reading, ['a'], 1)),
                               'Cannot re-initialize CUDA')}


@pytest.mark.parametrize(('fault', 'told'), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_refused(fault, told):
    with pretend_cuda.device(), pytest.raises((RuntimeError, TypeError, AssertionError),
                                              match=told):
        fault()


def test_waits_are_counted():
    with pretend_cuda.device() as gpu:
        x, index = torch.arange(6.0, device='cuda'), np.array([1, 2])
        for wait in (lambda: x[index], lambda: x[x > 2], lambda: x.sum().item(), lambda: x.cpu(),
                     lambda: torch.ones(2).to('cuda'), lambda: torch.tensor(1.0, device='cuda')):
            before = gpu.total('wait')
            wait()
            assert gpu.total('wait') > before
        for free in (lambda: x + 1, lambda: torch.stack([x[0], x[1]]),
                     lambda: torchutils.to_device(torch.ones(2), CUDA),
                     lambda: torchutils.ToHost(x), lambda: torch.full((), 1.0, device='cuda')):
            before = gpu.total('wait'), gpu.total('copy')
            free()
            assert (gpu.total('wait'), gpu.total('copy')) == before
        torch.ones(2).to('cuda', non_blocking=True)
        assert gpu.total('copy') == 1


CUDA = torch.device('cuda', 0)


def test_a_copy_to_the_host_waits_for_what_was_before_it():
    with pretend_cuda.device() as gpu:
        x = torch.arange(3.0, device='cuda')
        first = torchutils.ToHost(x)
        second = torchutils.ToHost(x + 1)
        assert first.read().tolist() == [0, 1, 2]
        assert (gpu.total('event'), gpu.total('wait')) == (1, 0)
        with pytest.raises(AssertionError, match='need not have ended'):
            second._copy.tolist()
        assert second.read().tolist() == [1, 2, 3]
        assert (gpu.total('event'), gpu.total('wait')) == (1, 1)


def test_old_pinning_makes_lists_of_tuples():
    item = (torch.ones(1), (3, 4), make_cam.Scales(np.arange(2), (5, 6), [torch.ones(1)]))
    for old in (False, True):
        with pretend_cuda.device(old_pinning=old) as gpu:
            (read,) = datasets.read_ahead(lambda key: item, [0], 0, pin_memory=True)
            assert type(read) is (list if old else tuple)
            assert read[1] == ([3, 4] if old else (3, 4))
            assert isinstance(read[2], make_cam.Scales)
            assert gpu.is_pinned(read[0]) and gpu.is_pinned(read[2].images[0])


def left_on_the_host(patch):
    patch.setattr(torchutils, 'to_device', lambda tensor, device: tensor)


def generator_of_the_cpu(patch):
    def forward(self, x, seeds=None):
        for mask, seed in zip(keep := torch.empty_like(x), seeds.tolist(), strict=True):
            mask.bernoulli_(0.9, generator=torch.Generator().manual_seed(seed))
        return x * keep
    patch.setattr(resnet50_amn.SeededDropout, 'forward', forward)


def read_too_early(patch):
    patch.setattr(torchutils.ToHost, 'read', lambda self: self._copy)


def not_brought_to_the_host(patch):
    patch.setattr(activations.Activation, 'on_host', lambda self: activations.Activation(
        self.keys, self.strided.numpy(), self.high_res.numpy()))


def key_of_a_tuple(patch):
    patch.setattr(make_cam.Scales, 'kind', lambda item: item.hw)


def computed_in_the_worker(patch):
    real = datasets.scaled_images
    patch.setattr(datasets, 'scaled_images', lambda image,
                  scales: [each.to('cuda') for each in real(image, scales)])


PLANTED = {
    'an image left on the host': ('make_seg', left_on_the_host, {}),
    'a batch left on the host': ('train_cam', left_on_the_host, {}),
    "the CPU's generator": ('train_amn', generator_of_the_cpu, {}),
    'a loss read too early': ('train_seg', read_too_early, {}),
    'fields read too early': ('make_ins_seg', read_too_early, {}),
    'planes of the device': ('make_cam', not_brought_to_the_host, {}),
    'a tuple as a key': ('make_cam', key_of_a_tuple, {}),
    'the device in a worker': ('make_cam', computed_in_the_worker, {'num_workers': 1})}


@pytest.mark.parametrize(('stage', 'plant', 'flags'), PLANTED.values(), ids=PLANTED)
def test_a_fault_in_a_stage_is_seen(made, tmp_path, monkeypatch, stage, plant, flags):
    command = copied(made, tmp_path / 'run')
    plant(monkeypatch)
    with pretend_cuda.device(old_pinning=True), pytest.raises((RuntimeError, TypeError,
                                                               AssertionError)):
        command(stage, device='cuda', overwrite=True, **QUICK | flags)


def test_planes_are_chosen_as_an_index_chooses_them():
    planes = torch.rand(4, 2, 3)
    for numbers in ([], [2], [0, 3]):
        assert torch.equal(maps.chosen_planes(planes, np.array(numbers, int)),
                           planes[np.array(numbers, int)])
    chosen = maps.chosen_planes(planes, np.array([1]))
    planes.zero_()
    assert chosen.any()


