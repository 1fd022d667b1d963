"""A data set of one's own, here medical images: ROOT/scans/ID.png, ROOT/outlines/ID.png (0, 1, 2)
for some, and ROOT/found.txt
with a line an image: its id and what was found in it.

    python run_sample.py --dataset lesions --data_root ROOT --train_cam_pass ...
"""
from pathlib import Path

import numpy as np

from misc.contract import sources
from misc.files.label_maps import PALETTE
from misc.pyutils import UserError


class Source(sources.Source):
    name = 'lesions'
    root_is = 'the folder that holds scans/ and found.txt'
    lists = {'train_list': 'all', 'val_list': 'all', 'infer_list': 'all', 'eval_set': 'outlined',
             'seg_list': 'all'}
    classes = ('cyst', 'tumour')
    palette = PALETTE

    def __init__(self, root):
        self.root = Path(root)
        try:
            lines = (self.root / 'found.txt').read_text(encoding='utf-8').splitlines()
        except OSError as error:
            raise UserError(
                f'{root}: cannot be read ({error}); --data_root is {self.root_is}') from error
        self.found = {words[0]: words[1:] for words in map(str.split, lines) if words}

    def names(self, list_or_split):
        ids = list(self.found)
        if list_or_split == 'outlined':
            return [image_id for image_id in ids if self.mask_path(image_id).is_file()]
        if list_or_split == 'all':
            return ids
        raise UserError(f'{list_or_split}: neither all nor outlined')

    def image_path(self, image_id):
        return self.root / 'scans' / f'{image_id}.png'

    def mask_path(self, image_id):
        return self.root / 'outlines' / f'{image_id}.png'

    def labels(self, image_id):
        return np.isin(self.classes, self.found[image_id])
