"""Score the segmentation network's label maps, and with --seg_crf those refined by CRF.

Reads --seg_out_dir, with --seg_crf also --seg_crf_out_dir, and the masks of --seg_list. Prints the
scores, adds a line for each to the scores file.
Only this stage: python run_sample.py --eval_seg_pass True
"""
from typing import Any

from misc.contract.settings import SegMaps
from misc.contract.stages import Input, Job, Row, Stage
from misc.files import records
from misc.score import folders
from step.make_seg import server_folder, with_crf


def run(job: Job, settings: SegMaps) -> None:
    folder = server_folder(job, job.files['seg_out_dir'])
    made_with = {name: records.recorded(folder, name, getattr(settings, name))
                 for name in ('scales', 'flip')}
    folders.score_label_maps(job, 'eval_seg', folder, job.remedy('seg_out_dir'), 'seg_list',
                             **made_with)
    if settings.crf:
        folders.score_label_maps(job, 'eval_seg_crf',
                                 server_folder(job, job.files['seg_crf_out_dir']),
                                 job.remedy('seg_crf_out_dir', '--seg_crf True first'), 'seg_list',
                                 **made_with)


def is_of_one_scale(line: dict[str, Any]) -> bool:
    """Tell whether a line of the scores file is that of label maps at one scale."""
    return len(line['scales']) == 1


STAGE = Stage(
    'eval_seg', 'score them', run, (SegMaps,),
    reads=(Input('seg_out_dir'), Input('seg_crf_out_dir', when=with_crf)),
    lists=('seg_list',), labelled=False, masks=True,
    rows=(Row('eval_seg', 'segmentation, one scale', matches=is_of_one_scale),
          Row('eval_seg', 'segmentation, multi-scale', {'voc12': 0.695, 'coco14': 0.447}),
          Row('eval_seg_crf', 'segmentation, CRF')))
