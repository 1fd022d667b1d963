"""MS-COCO 2014 as a source, with the interface of voc12.dataloader.VOC12.

Below the root:

  JPEGImages/train2014/COCO_train2014_ID.jpg   val2014 likewise; train2014/ right below the root,
                                               as COCO unpacks, will do

and, made by `python -m coco14.prepare`:

  ImageSets/train2014.txt                      the ids, of 12 digits
  ImageSets/train2014.npz                      image-level labels: ids int64 (N,), present uint8
                                               (N, 10), a bit a class
  SegmentationClass/train2014/ID.png           label maps: 0..80, 255 for crowd regions

Nothing here looks at single files: a folder of 82,783 is listed once.
"""
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from misc.contract.sources import Check, Source, parse_list
from misc.files.label_maps import PALETTE
from misc.pyutils import UserError, atomic_path

SPLITS = ('train2014', 'val2014')
# in the order of COCO's category ids
CLASSES = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light',
    'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep',
    'cow', 'elephant',
    'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee',
    'skis', 'snowboard',
    'sports ball', 'kite', 'baseball bat', 'baseball glove', 'skateboard', 'surfboard',
    'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
    'broccoli', 'carrot',
    'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant', 'bed', 'dining table',
    'toilet', 'tv', 'laptop',
    'mouse', 'remote', 'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink',
    'refrigerator', 'book', 'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush')
CATEGORY_IDS = tuple(number for number in range(1, 91)
                     if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
DIGITS = 12  # of an id


def id_of(number: int) -> str:
    """COCO's image number -> id."""
    return f'{number:0{DIGITS}d}'


def image_name(split: str, image_id: str) -> str:
    return f'COCO_{split}_{image_id}.jpg'


def image_folder(root: Path, split: str) -> Path:
    return root / 'JPEGImages' / split if (root / 'JPEGImages').is_dir() else root / split


def list_path(root: Path, split: str | os.PathLike) -> Path:
    return root / 'ImageSets' / f'{split}.txt'


def labels_path(root: Path, split: str) -> Path:
    return root / 'ImageSets' / f'{split}.npz'


def mask_folder(root: Path, split: str) -> Path:
    return root / 'SegmentationClass' / split


def save_labels(path: Path, numbers: np.ndarray, present: np.ndarray) -> None:
    """Write the image-level labels of a split.

    numbers: the images', (N,).
    present: bool (N, C).
    """
    with atomic_path(path) as temporary, open(temporary, 'wb') as stream:
        np.savez(stream, ids=numbers.astype(np.int64), present=np.packbits(present, 1))


class COCO14(Source):
    """The folder that holds COCO's images and what coco14.prepare made.

    Raises UserError where `root` is no such folder or is not prepared.
    """

    name = 'coco14'
    root_is = 'the folder that python -m coco14.prepare filled'
    lists = {'train_list': 'train2014', 'val_list': 'val2014', 'infer_list': 'train2014',
             'eval_set': 'train2014', 'seg_list': 'val2014'}
    environment = 'COCO14_ROOT'
    classes = CLASSES
    palette = PALETTE
    upright = False  # masks do not follow EXIF orientation

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f'{root}: no such folder; the root of MS-COCO 2014 is the one that '
                            f'holds JPEGImages/train2014')
        stored = {split: _load_labels(path) for split in SPLITS
                  if (path := labels_path(self.root, split)).is_file()}
        if not stored:
            raise UserError(f'{root} has no {labels_path(Path(), "train2014")}: python -m '
                            f'coco14.prepare --coco_root {root} '
                            'makes lists, labels and masks')
        numbers = np.concatenate([ids for ids, _ in stored.values()])
        order = numbers.argsort()
        self._numbers = numbers[order]  # ascending, of both splits; the rows of the next two
        self._bits = np.concatenate([bits for _, bits in stored.values()])[order]
        self._split = np.repeat([SPLITS.index(split) for split in stored],
                                [len(ids) for ids, _ in stored.values()])[order]
        if (np.diff(self._numbers) == 0).any():
            raise UserError(f'{self.root}/ImageSets: an image is in both splits; run '
                            f'coco14.prepare again')
        self._image_folders = {split: image_folder(self.root, split) for split in SPLITS}
        self._images: np.ndarray | None = None
        self._notes: dict[str, None] = {}

    def image_path(self, image_id: str) -> Path:
        split = SPLITS[self._split[self._row(image_id)]]
        return self._image_folders[split] / image_name(split, image_id)

    def mask_path(self, image_id: str) -> Path:
        """The true label map (crowd regions 255); may be missing: only scores need it."""
        return mask_folder(self.root, SPLITS[self._split[self._row(image_id)]]) / f'{image_id}.png'

    def names(self, list_or_split: str | os.PathLike) -> list[str]:
        """Return the ids of a list file, or of a split (train2014, val2014).

        COCO_train2014_ID.jpg in a list is ID. Raises UserError where there is neither, for ids that
        are not COCO's, and where images are missing.
        """
        path = Path(list_or_split)
        if not path.is_file():
            path = list_path(self.root, list_or_split)
            if not path.is_file():
                raise UserError(f'{list_or_split}: neither a list file nor a split (there is no '
                                f'{path})')
        found = parse_list(path)
        ids = [name.rpartition('_')[2] for name in found.ids]
        try:
            numbers = _numbers_of(ids)
        except UserError as error:
            raise UserError(f'{path}: {error}') from error
        self._refuse(path, ids, np.isin(numbers, self._numbers),
                     f'known in {self.root}/ImageSets; run coco14.prepare for '
                     'their split, or give another list')
        if found.absent:
            self._notes[found.note(path)] = None
        self._refuse(path, ids, self._has_image(numbers),
                     f'in {self._image_folders["train2014"]} or val2014; give a '
                     'list that fits')
        return ids

    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,): every class annotated in the image, crowd regions too.

        Raises UserError for an id that is in neither split.
        """
        return np.unpackbits(self._bits[self._row(image_id)], count=self.n_classes).astype(bool)

    def check(self, ids: Iterable[str]) -> Check:
        """Return what is there and what is missing for `ids`.

        An image that is in neither split counts as without annotation.
        """
        ids = list(ids)
        numbers = _numbers_of(ids)
        listed = np.isin(numbers, self._numbers)
        bits = self._bits[self._numbers.searchsorted(numbers[listed])]
        masks = [_numbers_in(mask_folder(self.root, split), '', '.png') for split in SPLITS]

        def named(wanted: np.ndarray) -> list[str]:
            return [id_of(number) for number in numbers[wanted]]

        has_class = np.ones(len(ids), bool)
        has_class[listed] = bits.any(1)
        return Check(images=len(ids), missing_image=named(~self._has_image(numbers)),
                     missing_annotation=named(~listed), no_class=named(~has_class),
                     missing_mask=named(~np.isin(numbers, np.concatenate(masks))),
                     per_class=np.unpackbits(bits, 1, count=self.n_classes).sum(0, dtype=np.int64),
                     notes=list(self._notes))

    def _row(self, image_id: str) -> int:
        number = _number_of(image_id)
        row = int(self._numbers.searchsorted(number))
        if row == len(self._numbers) or self._numbers[row] != number:
            raise UserError(f'{image_id}: in none of the splits that coco14.prepare made in '
                            f'{self.root}/ImageSets')
        return row

    def _has_image(self, numbers: np.ndarray) -> np.ndarray:
        """bool (N,)."""
        if self._images is None:
            self._images = np.concatenate([_numbers_in(folder, f'COCO_{split}_', '.jpg')
                                           for split, folder in self._image_folders.items()])
        return np.isin(numbers, self._images)

    def _refuse(self, path: Path, ids: list[str], good: np.ndarray, text: str) -> None:
        if not good.all():
            first = ids[int((~good).argmax())]
            raise UserError(f'{path}: {np.count_nonzero(~good)} of its {len(ids)} images (first '
                            f'{first}) are not {text}')


def _number_of(image_id: str) -> int:
    if len(image_id) != DIGITS or not image_id.isdecimal():
        raise UserError(f'{image_id!r} is not an id of MS-COCO 2014, which have {DIGITS} digits')
    return int(image_id)


def _numbers_of(ids: list[str]) -> np.ndarray:
    """int64 (N,). UserError for the first that is not an id."""
    return np.fromiter(map(_number_of, ids), np.int64, len(ids))


def _numbers_in(folder: Path, start: str, end: str) -> np.ndarray:
    """Numbers of the files START + 12 digits + END in a folder, int64; none where there is no such
    folder.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return np.empty(0, np.int64)
    length = len(start) + DIGITS + len(end)
    digits = (name[len(start):len(start) + DIGITS] for name in names
              if len(name) == length and name.startswith(start) and name.endswith(end))
    return np.array([int(number) for number in digits if number.isdecimal()], np.int64)


def _load_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            numbers, bits = stored['ids'], stored['present']
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f'{path}: not a whole file of labels ({error}); delete it and run '
                        f'coco14.prepare again') from error
    if bits.shape != (len(numbers), (len(CLASSES) + 7) // 8):
        raise UserError(f'{path}: not labels of {len(CLASSES)} classes; delete it and run '
                        f'coco14.prepare again')
    return numbers, bits
