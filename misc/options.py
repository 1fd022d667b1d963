"""Every flag, with its effect and where its default comes from ("authors": the published script; "ours"): stages, data sets,
thresholds, files, and what a flag that is not given stands for.
"""
import argparse
import dataclasses
import importlib
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

from misc import datasets, imutils, torchutils
from misc.auto_threshold import AUTO
from misc.pyutils import UserError


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage: what it is for, the argument that names its output, those that name its inputs, the lists it goes over,
    whether it needs the images' labels."""

    name: str
    help: str
    writes: str | None
    reads: tuple[str, ...] = ()
    lists: tuple[str, ...] = ('train_list',)
    labelled: bool = True


STAGES = (  # in pipeline order
    Stage('train_cam', 'train the classifier whose activations are CAM', 'cam_weights_name', (),
          ('train_list', 'val_list')),
    Stage('make_cam', "CAM's activations", 'cam_out_dir', ('cam_weights_name',)),
    Stage('eval_cam', "score CAM's activations", None, ('cam_out_dir',), ('eval_set',)),
    Stage('cam_to_ir_label', "refine CAM's seeds by CRF", 'ir_label_out_dir', ('cam_out_dir',)),
    Stage('eval_ir_label', "score CAM's refined seeds", None, ('ir_label_out_dir',), ('eval_set',)),
    Stage('train_amn', "train AMN on CAM's refined seeds", 'amn_weights_name', ('ir_label_out_dir',),
          ('train_list', 'infer_list')),
    Stage('make_amn_cam', "AMN's activations", 'amn_cam_out_dir', ('amn_weights_name', 'ir_label_out_dir')),
    Stage('eval_amn_cam', "score AMN's activations", None, ('amn_cam_out_dir',), ('eval_set',)),
    Stage('amn_cam_to_ir_label', "refine AMN's seeds by CRF", 'amn_ir_label_out_dir', ('amn_cam_out_dir',)),
    Stage('eval_amn_ir_label', "score AMN's refined seeds", None, ('amn_ir_label_out_dir',), ('eval_set',)),
    Stage('train_irn', "train IRN on AMN's refined seeds", 'irn_weights_name', ('amn_ir_label_out_dir',),
          ('train_list', 'infer_list')),
    Stage('make_sem_seg', "pseudo-masks: random walk over AMN's activations", 'sem_seg_out_dir',
          ('irn_weights_name', 'amn_cam_out_dir'), ('infer_list',)),
    Stage('eval_sem_seg', 'score the pseudo-masks', None, ('sem_seg_out_dir',), ('eval_set',)),
    Stage('make_ins_seg', "instance masks: random walk over CAM's activations, parted by IRN's displacements",
          'ins_seg_out_dir', ('irn_weights_name', 'cam_out_dir'), ('infer_list',)),
    Stage('eval_ins_seg', 'score the instance masks', None, ('ins_seg_out_dir',), ('eval_set',)),
    Stage('train_seg', 'train the segmentation network on the pseudo-masks', 'seg_weights_name', ('seg_label_dir',),
          labelled=False),
    Stage('make_seg', "the segmentation network's label maps", 'seg_out_dir', ('seg_weights_name',), ('seg_list',),
          labelled=False),
    Stage('eval_seg', 'score them', None, ('seg_out_dir',), ('seg_list',), labelled=False),
    Stage('analyze_threshold', 'what a global threshold costs CAM, AMN and pseudo-masks, with plots', 'analysis_out_dir', (),
          ('eval_set',)),
    Stage('report', 'a page with scores, plots and a gallery of all that is there', 'report_out_dir', (), ('eval_set',),
          labelled=False),
)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set: the class of its source, what its root is, the defaults of the flags that name lists; the variable of
    the environment and the folder that stand for --data_root."""

    source: str
    root: str
    train_list: str
    val_list: str
    infer_list: str
    eval_set: str
    seg_list: str
    environment: str | None = None
    usual: str | None = None


LISTS = ('train_list', 'val_list', 'infer_list', 'eval_set')
DATASETS = {  # voc12: lists as the authors' script has them
    'voc12': DataSet('voc12.dataloader.VOC12', 'the folder VOC2012 that holds JPEGImages', 'voc12/train_aug.txt',
                     'voc12/val.txt', 'voc12/train.txt', 'train', 'voc12/val.txt', 'VOC12_ROOT', 'VOCdevkit/VOC2012'),
    'coco14': DataSet('coco14.dataloader.COCO14', 'the folder that python -m coco14.prepare filled', 'train2014', 'val2014',
                      'train2014', 'train2014', 'val2014', 'COCO14_ROOT'),
    'folder': DataSet('folder.dataloader.Folder', 'the folder that holds images/ and labels.csv', 'all', 'some', 'all',
                      'masked', 'all')}

# thresholds of each stage: (its own flag, the authors' shared flag, the published value)
THRESHOLDS = (
    ('eval_cam_thres', 'cam_eval_thres', 0.15), ('eval_amn_cam_thres', 'cam_eval_thres', 0.25),
    ('cam_conf_fg_thres', 'conf_fg_thres', 0.30), ('cam_conf_bg_thres', 'conf_bg_thres', 0.05),
    ('amn_conf_fg_thres', 'conf_fg_thres', 0.45), ('amn_conf_bg_thres', 'conf_bg_thres', 0.15))

# the segmentation network: (flag, as AMN's authors trained it (AdvCAM#9), as kazuto1011/deeplab-pytorch does)
SEG_RECIPES = (
    ('seg_input', 'torchvision', 'caffe'), ('seg_stride', '3x3', '1x1'), ('seg_ceil_mode', False, True),
    ('seg_steps', 30_000, 20_000), ('seg_loss', 'balanced', 'ce'),
    ('seg_resize', [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0], [0.5, 0.75, 1.0, 1.25, 1.5]))

# what the stages write, below --work_dir
AUTHORS_FILES = {'cam_weights_name': 'sess/res50_cam.pth', 'amn_weights_name': 'sess/res50_amn.pth',
                 'irn_weights_name': 'sess/res50_irn.pth', 'cam_out_dir': 'result/cam',
                 'ir_label_out_dir': 'result/ir_label', 'amn_cam_out_dir': 'result/amn_cam',
                 'amn_ir_label_out_dir': 'result/amn_ir_label', 'sem_seg_out_dir': 'result/sem_seg',
                 'ins_seg_out_dir': 'result/ins_seg'}
FILES = AUTHORS_FILES | {'seg_weights_name': 'sess/seg.pth', 'seg_out_dir': 'result/seg', 'seg_crf_out_dir': 'result/seg_crf',
                         'analysis_out_dir': 'result/analysis', 'report_out_dir': 'result/report'}
SCORES = 'result/scores.jsonl'
NETWORKS = ('cam', 'amn', 'irn')


def boolean(text: str) -> bool:
    """True or False in the usual spellings."""
    if text.lower() in ('true', 't', 'yes', 'y', 'on', '1'):
        return True
    if text.lower() in ('false', 'f', 'no', 'n', 'off', '0'):
        return False
    raise argparse.ArgumentTypeError(f'{text!r} is neither True nor False')


def number(kind: type, low: float, high: float = float('inf'), above: bool = False):
    """An argparse type: an int or float from `low` (above=True: greater than it) to `high`."""
    def parse(text: str) -> float:
        value = kind(text)
        if not (low < value if above else low <= value) or not value <= high or value == float('inf'):
            raise argparse.ArgumentTypeError(f'{text} is not {"above" if above else "at least"} {low}'
                                             + (f' and at most {high}' if high < float('inf') else ''))
        return value
    parse.__name__ = kind.__name__  # argparse's "invalid int value"
    return parse


def or_auto(kind: Callable[[str], float]) -> Callable[[str], float | str]:
    """An argparse type: what `kind` takes, or the word auto, which a stage resolves when it runs."""
    def parse(text: str) -> float | str:
        return AUTO if text == AUTO else kind(text)
    parse.__name__ = kind.__name__
    return parse


def named_folder(text: str) -> tuple[str, str]:
    """An argparse type: 'NAME=DIR' -> (NAME, DIR)."""
    name, _, folder = text.partition('=')
    if not re.fullmatch(r'[A-Za-z0-9][\w.+-]*', name, re.ASCII) or not folder:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=DIR, with a NAME of letters, digits and ._+-')
    return name, folder


COUNT, WHOLE, POSITIVE, RATE, SHARE = (number(int, 1), number(int, 0), number(float, 0, above=True), number(float, 0),
                                       number(float, 0, 1))
THRESHOLD = or_auto(SHARE)


def build_parser() -> argparse.ArgumentParser:
    """All flags, grouped by stage."""
    parser = _Parser(
        description='AMN: pseudo-masks from image-level labels. Name at least one stage.', allow_abbrev=False,
        usage='python run_sample.py [--dataset NAME] --data_root ROOT --STAGE_pass True ... [flags]',
        formatter_class=_Help, epilog='stages, in pipeline order:\n' + stage_list())
    group = parser.add_argument_group('stages', 'each False unless named; they run in this order').add_argument
    for stage in STAGES:
        group(f'--{stage.name}_pass', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
              help=stage.help)

    group = parser.add_argument_group('data').add_argument
    add_data_flags(group)
    group('--train_list', help='images to train on and to make activations for: a list file or a split of the root '
          + _default_lists('train_list'))
    group('--val_list', help='images whose loss is printed while CAM is trained ' + _default_lists('val_list'))
    group('--infer_list', help='images to make pseudo-masks for, within the train list; for VOC voc12/train_aug.txt for masks '
          'to train a segmentation network on ' + _default_lists('infer_list'))
    group('--eval_set', '--chainer_eval_set', dest='eval_set', help='the split to score on: a split of the root or a list '
          'file; its masks are needed ' + _default_lists('eval_set'))
    group('--check_data', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='say what is there, what is missing, how many images show each class; then stop')

    group = parser.add_argument_group('machine and run').add_argument
    group('--device', default='auto', help='auto (the first GPU, else the CPU), cpu, cuda or cuda:N')
    cores = torchutils.cores() // int(os.environ.get('LOCAL_WORLD_SIZE', '1'))  # torchrun tells how many share them
    group('--num_workers', type=WHOLE, default=max(1, cores // 2),
          help='processes that decode, refine and score, beside each one of torchrun; no result depends on it (authors: half '
          'the cores)')
    group('--precision', choices=tuple(torchutils.PRECISIONS), default='fp32',
          help='of the networks; bf16 takes about half the time where the machine has it; fp16 on GPUs only (ours; '
          'published: fp32)')
    group('--deterministic', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='on a GPU use only kernels that give the same bits in every run, which are slower; the CPU always does (ours)')
    group('--seed', type=number(int, 0, 2 ** 63 - 1), default=0,
          help='the same seed gives the same files, for any --num_workers; on a GPU with --deterministic (ours)')
    group('--repeat', type=COUNT, default=1, help='run the chosen stages this often, with --seed, --seed + 1, ...: what they '
          'write lies in a folder seed_N each; ends with mean and standard deviation of every score (ours)')
    group('--accumulate', type=COUNT, default=1, help='parts that a training batch is cut into, one after the other: the '
          'same gradient in less memory; no result depends on it but by rounding (ours)')
    group('--inference_batch_size', type=COUNT, default=1, help='images of like size that go through CAM and AMN at a time, '
          'each with its mirror, when activations are made; may be faster on a GPU; the same result but for rounding (ours)')
    group('--save_every', type=POSITIVE, default=30.0, help='minutes between checkpoints of a training; one is written '
          'after every epoch too (ours)')
    group('--tensorboard', metavar='DIR', help='write losses, learning rate and a few pictures an epoch there, for '
          'TensorBoard (needs the package tensorboard; ours)')
    group('--resume', type=boolean, nargs='?', const=True, default=True, metavar='True|False',
          help='go on with a training whose checkpoint is there; False starts it anew (ours)')
    group('--overwrite', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='make what the chosen stages write anew; without it what is there is kept, and a stage goes on (ours)')
    group('--log_name', default='sample_train_eval', help='the log goes to sess/NAME.log, or to NAME.log where the '
          'name has a folder (authors)')
    group('--scores_file', help=f'each score is added to it as a line of JSON (ours) [{SCORES}]')
    group('--pretrained', default='imagenet', metavar='imagenet|none|FILE', help="where the backbones start: "
          "torchvision's ImageNet weights, random, or a file with torchvision's names (published: imagenet)")
    group('--momentum', type=RATE, default=1e-4, help="of CAM's and IRN's SGD; 1e-4 is what the published figures were "
          'made with, by a slip of the authors: their weight decay lands here')

    group = parser.add_argument_group('CAM').add_argument
    group('--cam_network', default='net.resnet50_cam', help='module with class Net (authors)')
    group('--cam_crop_size', type=COUNT, default=512, help='side of the training crops, pixels (authors)')
    group('--cam_resize_long', type=COUNT, nargs=2, default=[320, 640], metavar=('LOW', 'HIGH'),
          help='long side of a training image, drawn evenly, pixels (authors, fixed there)')
    group('--cam_batch_size', type=COUNT, default=16, help='images a step (authors)')
    group('--cam_num_epoches', type=COUNT, default=5, help='passes over the train list (authors)')
    group('--cam_learning_rate', type=RATE, default=0.1, help='of the backbone; ten times that for the classifier '
          '(authors)')
    group('--cam_weight_decay', type=RATE, default=1e-4, help='authors')
    group('--cam_scales', type=POSITIVE, nargs='+', default=[1.0, 0.5, 1.5, 2.0],
          help='scales whose activations are added up, for CAM and AMN; fewer is faster and coarser (authors)')
    group('--cam_dtype', choices=('float32', 'float16', 'uint8'), default='float32', help="of CAM's and AMN's stored "
          'activations; float16 takes half the disk, uint8 (256 steps, compressed) about a tenth (ours; published: float32)')
    group('--cam_eval_thres', type=THRESHOLD, metavar='0..1|auto', help='threshold of both activation scores, where a stage '
          'has none of its own; raise for smaller objects; auto: chosen from the activations alone, without masks (ours) '
          '(published: CAM 0.15, AMN 0.25)')
    group('--eval_cam_thres', type=THRESHOLD, metavar='0..1|auto', help="threshold of CAM's score (0.15, published)")

    group = parser.add_argument_group('refined seeds').add_argument
    group('--conf_fg_thres', type=THRESHOLD, metavar='0..1|auto', help='above it a pixel is sure foreground, for both seed '
          'stages, where a stage has none of its own; raise for cleaner, sparser seeds; auto: from the activations alone '
          '(ours) (published: CAM 0.30, AMN 0.45)')
    group('--conf_bg_thres', type=THRESHOLD, metavar='0..1|auto', help='below it a pixel is sure background, likewise; lower '
          'for cleaner, sparser background (published: CAM 0.05, AMN 0.15)')
    for name, shown in (('cam', 'CAM'), ('amn', 'AMN')):
        for kind in ('fg', 'bg'):
            published = dict((row[0], row[2]) for row in THRESHOLDS)[f'{name}_conf_{kind}_thres']
            group(f'--{name}_conf_{kind}_thres', type=THRESHOLD, metavar='0..1|auto',
                  help=f"the same for {shown}'s seeds alone ({published:.2f}, published)")

    group = parser.add_argument_group('AMN').add_argument
    group('--amn_network', default='net.resnet50_amn', help='module with class Net (authors)')
    group('--amn_crop_size', type=COUNT, default=512, help='side of the training crops, pixels (authors)')
    group('--amn_batch_size', type=COUNT, default=16, help='images a step (authors)')
    group('--amn_num_epoches', type=COUNT, default=5, help='passes over the train list (authors)')
    group('--amn_learning_rate', type=RATE, nargs=2, default=[5e-6, 1e-4], metavar=('BACKBONE', 'HEAD'),
          help='of Adam (authors)')
    group('--amn_weight_decay', type=RATE, default=1e-4, help='of Adam, added to the gradient (authors)')
    group('--eps', type=SHARE, default=0.4, help='label smoothing of the per-pixel loss; raise for flatter activations, '
          '0 for none (authors)')
    group('--amn_label_conditioning', type=boolean, default=True, metavar='True|False', help="multiply AMN's features by the "
          'encoded labels; False to see what that does, in training and in making activations alike (authors: always)')
    group('--amn_balanced', type=boolean, default=True, metavar='True|False', help='half the loss for background and half '
          'for foreground pixels; False: the mean over all of them, to see what the balance does (authors: always)')
    group('--eval_amn_cam_thres', type=THRESHOLD, metavar='0..1|auto', help="threshold of AMN's score (0.25, published)")

    group = parser.add_argument_group('IRN').add_argument
    group('--irn_network', default='net.resnet50_irn', help='module with class Net (authors)')
    group('--irn_crop_size', type=number(int, 73), default=512, help='side of the training crops, pixels; pairs of radius 10 '
          'need 73 (authors)')
    group('--irn_batch_size', type=COUNT, default=32, help='images a step (authors)')
    group('--irn_num_epoches', type=COUNT, default=3, help='passes over the train list (authors)')
    group('--irn_learning_rate', type=RATE, default=0.1, help='of the edge head; ten times that for the displacement '
          'head (authors)')
    group('--irn_weight_decay', type=RATE, default=1e-4, help='authors')

    group = parser.add_argument_group('random walk').add_argument
    group('--beta', type=POSITIVE, default=10.0, help='power of the affinities; raise to spread less (authors)')
    group('--exp_times', type=number(int, 0, 20), default=8, help='the walk has 2^this steps (authors)')
    group('--sem_seg_bg_thres', type=SHARE, default=0.25, help='below it a pixel is background; raise for smaller '
          'objects (authors)')
    group('--sem_seg_power', type=POSITIVE, default=1.3, help='power of the activations before the walk; raise for '
          'smaller objects (authors, fixed there)')
    group('--sem_seg_canvas', type=WHOLE, default=512, help="side that IRN's images are padded to where they are smaller, "
          'pixels; 0 for none; near --irn_crop_size, where that is small, the boundaries are better (authors, fixed there)')
    group('--ins_seg_bg_thres', type=SHARE, default=0.25, help='the same for the instance masks (authors)')
    group('--ins_seg_coco_json', metavar='FILE', help="make_ins_seg also writes its masks there, in COCO's format, to train "
          'an instance network on (ours)')
    group('--walked_out_dir', metavar='DIR', help='keep the walk of each image there (0.05 MB an image and class): '
          'make_sem_seg then makes masks at another --sem_seg_bg_thres without walking again, analyze_threshold tries them all '
          '(ours; default: not kept)')

    group = parser.add_argument_group('threshold analysis').add_argument
    group('--analyze_dirs', type=named_folder, nargs='+', default=[], metavar='NAME=DIR', help='further folders of activations '
          'to analyse beside --cam_out_dir, --amn_cam_out_dir and --walked_out_dir, with --eval_cam_thres as their threshold '
          '(ours)')

    group = parser.add_argument_group('report').add_argument
    group('--report_images', type=WHOLE, default=60, help='images in its gallery: a third the best, a third the worst, a '
          'third drawn at random; 0 for all (ours)')

    group = parser.add_argument_group(
        'segmentation network', "trained on the pseudo-masks. Where no default is shown it is the recipe's: 'advcam', as AMN's "
        "authors trained it (AdvCAM#9), or 'deeplab', kazuto1011/deeplab-pytorch").add_argument
    group('--seg_recipe', choices=('advcam', 'deeplab'), default='advcam', help='which settings the flags below start from; '
          "deeplab wants Caffe's weights; for torchvision's add --seg_input torchvision --seg_stride 3x3 --seg_ceil_mode False")
    group('--seg_network', default='net.resnet101_deeplab', help='module with class Net: net.resnet101_deeplab (published), or '
          'net.resnet50_deeplab for half the time and memory (ours)')
    group('--seg_label_dir', metavar='DIR', help='label maps to train on, one for each image of the train list: '
          '--sem_seg_out_dir unless given; SegmentationClassAug for full supervision')
    group('--seg_pretrained', metavar='imagenet|none|FILE', help='where its backbone starts: as --pretrained unless given; '
          "FILE may have kazuto1011/deeplab-pytorch's names (published: imagenet, and COCO's for the recipe deeplab)")
    for name, help_text, options in (
            ('input', 'pixels: torchvision (RGB, mean, std) or caffe (BGR minus mean), as the weights to start from were made',
             {'choices': tuple(imutils.INPUTS)}),
            ('stride', "a block's stride is in its 3x3 (torchvision's weights) or in its first 1x1 (Caffe's)",
             {'choices': ('3x3', '1x1')}),
            ('ceil_mode', "the pooling rounds up (Caffe's weights)",
             {'type': boolean, 'nargs': '?', 'const': True, 'metavar': 'True|False'}),
            ('steps', 'updates in all', {'type': COUNT}),
            ('loss', 'ce, or balanced: half of it from background, half from foreground, which users found necessary on '
             'pseudo-masks', {'choices': ('ce', 'balanced')}),
            ('resize', 'factors by one of which a training image is resized', {'type': POSITIVE, 'nargs': '+'})):
        group(f'--seg_{name}', help=f'{help_text} (advcam: {_recipe(name, 1)}; deeplab: {_recipe(name, 2)})', **options)
    group('--seg_crop_size', type=COUNT, default=321, help='side of the training crops, pixels (published)')
    group('--seg_batch_size', type=COUNT, default=10, help='images a step; 10 of 321 pixels through ResNet-101 take 13.7 GiB '
          'in fp32, 7.4 with --accumulate 2 (published), 3.7 with --accumulate 5, which fits 8 GB (measured on the CPU)')
    group('--seg_learning_rate', type=RATE, default=2.5e-4, help="of the backbone's convolutions; ten times that for the "
          "head's weights, twenty times for its biases (published)")
    group('--seg_weight_decay', type=RATE, default=5e-4, help="of all but the head's biases (published)")
    group('--seg_momentum', type=RATE, default=0.9, help='published')
    group('--seg_train_scales', type=POSITIVE, nargs='+', default=[1.0, 0.75, 0.5], help='scales of a crop that the loss is '
          'taken at, and at their maximum (published)')
    group('--seg_list', help='images to segment and score: a list file or a split of the root; test for the evaluation '
          'server, in the layout that it wants ' + _default_lists('seg_list'))
    group('--seg_scales', type=POSITIVE, nargs='+', default=[1.0, 0.75, 0.5], help='scales whose maximum makes the label maps '
          '(published); 1 alone is a third faster')
    group('--seg_flip', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='take the mean with the mirror; twice the time (ours)')
    group('--seg_crf', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help="refine by CRF too, into --seg_crf_out_dir, where the logits lie meanwhile (0.15 MB an image of VOC); both are "
          'scored (published figures are given with and without)')

    group = parser.add_argument_group('files').add_argument
    group('--work_dir', default='.', help='the folder that holds sess/ and result/: every file below that is not named, the '
          'log and the scores lie in it (ours)')
    for name, path in FILES.items():
        written_by = next((stage.name for stage in STAGES if stage.writes == name), 'make_seg')  # its second folder
        origin = 'authors' if name in AUTHORS_FILES else 'ours'
        group(f'--{name}', help=f'what {written_by} writes ({origin}) [{path}]')
    return parser


def add_data_flags(group: Callable[..., argparse.Action]) -> None:
    """The flags that name a data set, for scripts too. group: a parser's `add_argument`."""
    group('--dataset', choices=tuple(DATASETS), default='voc12', help="VOC 2012, MS-COCO 2014, or one's own photographs")
    group('--data_root', metavar='DIR', help='; '.join(
        f'{name}: {known.root}' + ''.join(f', else {other}' for other in (known.environment, known.usual) if other)
        for name, known in DATASETS.items()))
    group('--voc12_root', metavar='DIR', help='the same for --dataset voc12 (authors)')


def _default_lists(flag: str) -> str:
    return '[' + ', '.join(f'{name}: {getattr(known, flag)}' for name, known in DATASETS.items()) + ']'


def _recipe(name: str, column: int) -> str:
    value = next(row[column] for row in SEG_RECIPES if row[0] == f'seg_{name}')
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value)


class _Parser(argparse.ArgumentParser):
    """Tells of a wrong flag as every error is told: in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message} (--help lists the flags)\n')


class _Help(argparse.RawDescriptionHelpFormatter):
    """Adds each default that the help does not already tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        shown = ' '.join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f'{action.help} [{shown}]'.replace('%', '%%')


def parser_of(names: Collection[str], **options: Any) -> argparse.ArgumentParser:
    """A parser of these flags alone, for another command: the same defaults, checks and help."""
    parser = _Parser(allow_abbrev=False, formatter_class=_Help, **options)
    group = parser.add_argument_group('as in run_sample.py')
    for action in build_parser()._actions:
        if action.dest in names:
            group._add_action(action)
    return parser


def stage_list() -> str:
    return '\n'.join(f'  --{stage.name}_pass'.ljust(31) + stage.help for stage in STAGES)


def resolve_thresholds(args: argparse.Namespace) -> None:
    """A stage's own flag; else the shared flag, if given; else the value published for that stage."""
    for own, shared, published in THRESHOLDS:
        if getattr(args, own) is None:
            given = getattr(args, shared)
            setattr(args, own, published if given is None else given)
    for name in ('cam', 'amn'):
        low, high = getattr(args, f'{name}_conf_bg_thres'), getattr(args, f'{name}_conf_fg_thres')
        if AUTO not in (low, high) and low > high:
            raise UserError(f'{name.upper()} seeds: the background threshold {low} is above the foreground threshold '
                            f'{high}; give --{name}_conf_bg_thres and --{name}_conf_fg_thres')


def resolve_recipe(args: argparse.Namespace) -> None:
    """What is not given of the segmentation network is what --seg_recipe says."""
    for name, advcam, deeplab in SEG_RECIPES:
        if getattr(args, name) is None:
            setattr(args, name, advcam if args.seg_recipe == 'advcam' else deeplab)
    args.seg_label_dir = args.seg_label_dir or args.sem_seg_out_dir
    args.seg_pretrained = args.seg_pretrained or args.pretrained
    if args.seg_pretrained == 'imagenet' and (args.seg_input, args.seg_stride, args.seg_ceil_mode) != (
            'torchvision', '3x3', False) and args.train_seg_pass:
        raise UserError("train_seg: torchvision's ImageNet weights need --seg_input torchvision --seg_stride 3x3 "
                        "--seg_ceil_mode False; for Caffe's form give a file with its weights: --seg_pretrained FILE")


def resolve_files(args: argparse.Namespace) -> None:
    """What is not named has its usual name, in --work_dir."""
    for name, default in (FILES | {'scores_file': SCORES}).items():
        if getattr(args, name) is None:
            setattr(args, name, str(Path(args.work_dir) / default))


def resolve_lists(args: argparse.Namespace) -> None:
    """What is not named is the data set's own."""
    for name in (*LISTS, 'seg_list'):
        if getattr(args, name) is None:
            setattr(args, name, getattr(DATASETS[args.dataset], name))


def find_root(given: str | None, dataset: str = 'voc12') -> str:
    """--data_root, else what the environment names, else where the data set usually lies."""
    known = DATASETS[dataset]
    usual = known.usual if known.usual and Path(known.usual).is_dir() else None
    root = given or os.environ.get(known.environment or '') or usual
    if root is None:
        flag = f'--data_root FOLDER{" (or --voc12_root)" if dataset == "voc12" else ""}'
        raise UserError(f'where is {dataset}? Give {flag}: {known.root}'
                        + (f'; or set {known.environment}' if known.environment else ''))
    return root


def open_source(args: argparse.Namespace) -> datasets.Source:
    """The source of --dataset, at its root, which args.data_root tells from then on.

    Raises UserError where there is none, and for roots that contradict each other.
    """
    if args.voc12_root is not None and (args.dataset != 'voc12' or args.data_root not in (None, args.voc12_root)):
        raise UserError(f'--voc12_root {args.voc12_root} beside --dataset {args.dataset}'
                        f'{f" --data_root {args.data_root}" if args.data_root else ""}: give --data_root alone')
    args.data_root = find_root(args.data_root or args.voc12_root, args.dataset)
    module, name = DATASETS[args.dataset].source.rsplit('.', 1)
    return getattr(importlib.import_module(module), name)(args.data_root)
