"""All stages, in pipeline order: to add one, end its file with its STAGE, and name it here."""
from misc.contract.stages import Stages
from step import (
    amn_cam_to_ir_label,
    analyze_threshold,
    cam_to_ir_label,
    draw_sheet,
    eval_amn_cam,
    eval_amn_ir_label,
    eval_cam,
    eval_ins_seg,
    eval_ir_label,
    eval_seg,
    eval_sem_seg,
    make_amn_cam,
    make_cam,
    make_ins_seg,
    make_seg,
    make_sem_seg,
    report,
    train_amn,
    train_cam,
    train_irn,
    train_seg,
)

STAGES = Stages(module.STAGE for module in (
    train_cam, make_cam, eval_cam, cam_to_ir_label, eval_ir_label,
    train_amn, make_amn_cam, eval_amn_cam, amn_cam_to_ir_label, eval_amn_ir_label,
    train_irn, make_sem_seg, eval_sem_seg, make_ins_seg, eval_ins_seg,
    train_seg, make_seg, eval_seg, analyze_threshold, draw_sheet, report))
