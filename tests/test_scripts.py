"""What a person runs, on the small tree with small networks."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from misc import indexing
from script import benchmark
from tests.conftest import GOLDEN, Command
from tests.tiny import NETWORKS, QUICK

ROOT = Path(__file__).resolve().parent.parent


def script(name, *words, cwd=ROOT, **environment):
    return subprocess.run([shutil.which('bash'), ROOT / 'script' / name, *map(str, words)], cwd=cwd,
                          capture_output=True, text=True, timeout=300,
                          env=os.environ | {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'} |
                          environment)


def flags(**values):
    return [word for name, value in values.items()
            for word in (f'--{name}', *map(str, value if isinstance(value, list) else [value]))]


def test_table_of_scores_holds_instances(tmp_path):
    path = tmp_path / 'scores.jsonl'
    path.write_text('\n'.join(json.dumps({'split': 'val', 'data': 'voc12', 'images': 4} | line)
                              for line in (
        {'stage': 'eval_ins_seg', 'map': 0.377, 'threshold': 0.25},
        {'stage': 'eval_sem_seg', 'miou': None},
        {'stage': 'eval_seg', 'miou': 0.61, 'scales': [1.0]})) + '\n')
    done = subprocess.run([sys.executable, 'script/score_table.py', path], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split('  ')[0] for line in done.stdout.splitlines()[2:]] == [
        'pseudo-mask', 'instance masks (mean AP)', 'segmentation, one scale']
    assert done.stdout.splitlines()[3].split()[-7:] == ['0.25', '37.7', '-', '-', '-', 'val', '(4)']
    path.write_text('{"split": "val"}\n')
    done = subprocess.run([sys.executable, 'script/score_table.py', path], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (f"error: {path}: not a file of scores (a line without 'stage'); mend "
                           f"it, or name another "
                           '--scores_file\n')


def test_table_of_scores_of_several_runs(tmp_path):
    """The folder of a run with --repeat, or the files: mean and deviation, a column a seed."""
    for seed, miou in ((2, 0.25), (10, 0.75)):
        path = tmp_path / f'seed_{seed}' / 'result' / 'scores.jsonl'
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({'split': 'val', 'data': 'voc12', 'images': 4, 'miou': miou,
                                    'stage': 'eval_sem_seg'}) + '\n')
    files = [tmp_path / f'seed_{seed}' / 'result' / 'scores.jsonl' for seed in (2, 10)]
    for given in ([tmp_path], files):
        done = subprocess.run([sys.executable, 'script/score_table.py', *given], cwd=ROOT,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        heading, _, row, note = done.stdout.splitlines()
        assert heading.endswith('  seed 2  seed 10')
        assert row.split('  ')[0] == 'pseudo-mask'
        assert '50.0 ± 35.4' in row
        assert row.split()[-2:] == ['25.0', '75.0']
        assert note == 'mean ± standard deviation of 2 runs'
    done = subprocess.run([sys.executable, 'script/score_table.py', tmp_path / 'seed_2', files[0]],
                          cwd=ROOT, capture_output=True, text=True)
    assert 'seed 2' not in done.stdout  # one run, however often it is named
    done = subprocess.run([sys.executable, 'script/score_table.py', tmp_path / 'none'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.stderr.startswith(f'error: {tmp_path}/none: no scores')


def test_generate_pseudo_mask_runs_all_stages_and_goes_on(tmp_path):
    words = [GOLDEN / 'tree', *flags(work_dir=tmp_path, train_list='train_aug', val_list='val',
                                     infer_list='train', pretrained='none', num_workers=0, **QUICK)]
    done = script('generate_pseudo_mask.sh', *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / 'sess').glob('*.pth')) == ['res50_amn.pth',
                                                                               'res50_cam.pth',
                                                                              'res50_irn.pth']
    assert len(list((tmp_path / 'result' / 'sem_seg').glob('*.png'))) == 4
    analysis = json.loads((tmp_path / 'result' / 'analysis' / 'analysis.json').read_text())
    assert analysis['methods'].keys() == {'cam', 'amn_cam', 'sem_seg'}
    assert len(list((tmp_path / 'result' / 'walked').glob('*.npz'))) == 4
    table = done.stdout[done.stdout.index('mIoU in %'):]
    for title, published in (('CAM seed', '48.8'), ('AMN seed', '62.1'), ('pseudo-mask', '72.2')):
        assert any(line.startswith(title) and line.endswith(published)
                   for line in table.splitlines())
    again = script('generate_pseudo_mask.sh', *words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count('is already trained with these settings') == 3
    assert again.stdout.count('4 of 4 images are already done') == 5


def test_from_released_needs_no_training(tmp_path):
    trained = Command(GOLDEN / 'tree', tmp_path / 'trained')
    assert trained('train_amn', **QUICK, ir_label_out_dir=GOLDEN / 'expected' / 'ir_label') == 0
    assert trained('train_irn', **QUICK,
                   amn_ir_label_out_dir=GOLDEN / 'expected' / 'amn_ir_label') == 0
    work = tmp_path / 'work'
    (work / 'sess').mkdir(parents=True)
    shutil.copy(trained.folder / 'amn.pth', work / 'sess' / 'res50_amn.pth.pth')
    shutil.copy(trained.folder / 'irn.pth', work / 'sess' / 'res50_irn.pth')
    shutil.copytree(GOLDEN / 'expected' / 'ir_label', work / 'result' / 'ir_label')
    done = script('generate_pseudo_mask.sh', '--from_released', '--work_dir', work, *flags(
        voc12_root=GOLDEN / 'tree', train_list='train_aug', infer_list='train', num_workers=0,
        cam_scales=[1.0], **NETWORKS))
    assert done.returncode == 0, done.stderr
    stages = [json.loads(line)['stage']
              for line in (work / 'result' / 'scores.jsonl').read_text().splitlines()]
    assert stages == ['eval_amn_cam', 'eval_sem_seg']
    assert not list((work / 'sess').glob('*.ckpt'))


def test_train_segmentation_scores_one_scale_several_and_crf(tmp_path):
    words = [GOLDEN / 'tree', *flags(work_dir=tmp_path, train_list='train_aug', seg_list='val',
                                     pretrained='none', num_workers=0,
                                     seg_label_dir=GOLDEN / 'tree' / 'SegmentationClass', **QUICK)]
    done = script('train_segmentation.sh', *words)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.rindex('mIoU in %'):].splitlines()
    assert [line.rsplit('  ', 1)[0].split('  ')[0] for line in table[2:5]] == [
        'segmentation, one scale', 'segmentation, multi-scale', 'segmentation, CRF']
    assert table[3].endswith('69.5')
    assert 'segmentation: val' in table[5]
    assert {path.name for path in (tmp_path / 'result').iterdir()
            if path.is_dir()} == {'seg', 'seg_crf', 'seg_one_scale'}
    assert not (tmp_path / 'result' / 'cam').exists()


def calls(tmp_path, name, *words):
    """The arguments of every call of a script's interpreter, in whose place stands one that only
    writes them down.
    """
    python = tmp_path / 'python'
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> "$0.calls"\n')
    python.chmod(0o755)
    Path(f'{python}.calls').unlink(missing_ok=True)
    done = script(name, *words, PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    return Path(f'{python}.calls').read_text().splitlines()


def test_a_script_is_a_preset_and_its_flags(tmp_path):
    """A first word without dashes is the root; flags follow the preset's, so that they win."""
    assert calls(tmp_path, 'generate_pseudo_mask.sh', 'my root', '--gpus=2') == [
        f'{ROOT}/run_sample.py --preset published --data_root my root --gpus=2']
    assert calls(tmp_path, 'generate_pseudo_mask_coco.sh', '--cam_dtype', 'float16') == [
        f'{ROOT}/run_sample.py --preset coco --cam_dtype float16']
    assert calls(tmp_path, 'small_run.sh', 'root', 'a.pth', '--work_dir', 'mine') == [
        f'{ROOT}/run_sample.py --preset small --data_root root --pretrained a.pth --work_dir '
        f'result/small_run --work_dir mine']


def test_the_segmentation_network_takes_pseudo_masks_or_what_it_is_given(tmp_path):
    told = calls(tmp_path, 'train_segmentation.sh', 'root', '--work_dir', 'mine')
    presets = [line.partition('--preset ')[2].split()[0] for line in told]
    assert presets == ['published', 'segmentation', 'segmentation']
    told = calls(tmp_path, 'train_segmentation.sh', 'root', '--seg_label_dir=masks')
    assert len(told) == 2
    assert told[0].endswith('--seg_scales 1 --seg_crf False --seg_out_dir '
                            '{work_dir}/result/seg_one_scale')


def test_paths_are_those_of_the_folder_a_script_is_called_in(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/usr/bin/env bash\nprintf "%s | %s\\n" "$PWD" "$*" >> "$0.calls"\n')
    python.chmod(0o755)
    for name, words in (('generate_pseudo_mask.sh', ['root']),
                        ('train_segmentation.sh', ['root', '--seg_label_dir', 'masks'])):
        done = script(name, *words, cwd=tmp_path, PYTHON='./python')
        assert done.returncode == 0, done.stderr
    assert all(line.startswith(f'{tmp_path} | {ROOT}/run_sample.py --preset')
               and ' --data_root root' in line
               for line in (tmp_path / 'python.calls').read_text().splitlines())


@pytest.mark.parametrize(('name', 'words', 'code', 'told'), [
    ('generate_pseudo_mask.sh', ['--gpus', 'many'], 1, 'error: --gpus many: a number of GPUs, or '
                                                       'all'),
    ('generate_pseudo_mask.sh', ['nowhere'], 1, 'error: nowhere: no such folder'),
    ('generate_pseudo_mask.sh', ['root', '--work_dir'], 2, 'error: argument --work_dir: expected '
                                                           'one argument'),
    ('small_run.sh', [], 2, 'usage: bash script/small_run.sh ROOT WEIGHTS'),
    ('quickstart.sh', ['--repeat', '2'], 2, 'error: --repeat: not in this script')])
def test_scripts_tell_how_they_are_used(tmp_path, name, words, code, told):
    done = script(name, *words)
    assert done.returncode == code
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_benchmarks_plain_walks_are_the_walk():
    """A ratio of two times means something only where both do the same."""
    generator = torch.Generator().manual_seed(0)
    x, edge = torch.rand(2, 11, 14, generator=generator), torch.rand(1, 11, 14, generator=generator)
    walked = indexing.propagate_to_edge(x.double(), edge.double())[:, 0]
    torch.testing.assert_close(benchmark.walk_by_planes(x, edge), walked, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(benchmark.dense_walk(x.double(), edge.double()), walked, rtol=1e-9,
                               atol=1e-12)


@pytest.mark.parametrize(('words', 'seed', 'folder'), [
    ([], 0, 'result/quickstart'), (['--seed=0'], 0, 'result/quickstart'),
    (['--beta', '8', '--seed', '2'], 2, 'result/quickstart_seed_2')])
def test_a_seed_of_the_quickstart_varies_everything(tmp_path, words, seed, folder):
    """Scenes, backbone and stages have it, and a folder of their own."""
    for name in ('script', '.venv/bin'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('quickstart.sh', 'help.sh'):
        shutil.copy(ROOT / 'script' / name, tmp_path / 'script')
    (tmp_path / 'script' / 'make_env.sh').write_text('')
    python = tmp_path / '.venv' / 'bin' / 'python'
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> "$0.calls"\n')
    python.chmod(0o755)
    done = subprocess.run([shutil.which('bash'), tmp_path / 'script' / 'quickstart.sh', *words],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn, pretrained, run, sheet = Path(f'{python}.calls').read_text().splitlines()
    assert drawn == f'-m voc12.sample {folder}/sample --size 160 --seed {seed}'
    assert (pretrained == f'{tmp_path}/script/pretrain_backbone.py --out {folder}/backbone.pth '
                          f'--seed {seed}')
    assert (f'--preset quickstart --voc12_root {folder}/sample --pretrained {folder}/backbone.pth '
            f'--work_dir {folder}' in run)
    assert run.endswith(' '.join(words))
    assert f'--work_dir {folder} ' in sheet


def test_a_browser_is_there_or_left_out_by_name(tmp_path):
    """Nothing but what the script needs on the path: no browser, no root, no apt-get."""
    for name in ('bash', 'id', 'env', 'dirname'):
        (tmp_path / name).symlink_to(shutil.which(name))
    alone = script('need_browser.sh', PATH=str(tmp_path), AMN_NO_BROWSER='')
    assert alone.returncode == 1
    assert len(alone.stderr.splitlines()) == 1
    assert alone.stderr.startswith('error: no chromium and chromedriver')
    assert 'AMN_NO_BROWSER=1 leaves these tests out' in alone.stderr
    assert script('need_browser.sh', PATH=str(tmp_path), AMN_NO_BROWSER='1').returncode == 0
    for name in ('chromium', 'chromedriver'):
        (tmp_path / name).symlink_to(shutil.which('true'))
    assert script('need_browser.sh', PATH=str(tmp_path), AMN_NO_BROWSER='').returncode == 0


@pytest.mark.parametrize(('program', 'code', 'told'), [
    ('', 0, ''),
    ('import sys; sys.exit("error: so it is")', 1, 'error: so it is'),
    ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', 1,
     'error: process [01] was ended by SIGKILL; SIGKILL is sent by the system, most likely for '
     'want of memory')])
def test_processes_end_without_torchruns_traceback(tmp_path, program, code, told):
    (tmp_path / 'program.py').write_text(program)
    script = (f'import sys\nfrom misc import ending\nfrom misc.command import launch\n'
              f'sys.exit(ending.run(lambda: launch.run_on_gpus("2", "{tmp_path}/program.py", [])))')
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True,
                          check=False, env=os.environ | {'OMP_NUM_THREADS': '1'})
    assert done.returncode == code, done.stderr
    # by one process or both, and nothing else
    assert re.fullmatch(rf'(\s*{told}\s*){"+" if told else ""}', done.stderr), done.stderr
