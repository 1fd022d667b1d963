#!/usr/bin/env bash
# The whole pipeline on a small part of VOC (698 photographs, 165 masks) that two CPU cores can train on in an hour.
# usage: bash script/small_run.sh ROOT WEIGHTS [further flags of run_sample.py]
#   ROOT     a VOC-shaped folder with the splits train_aug, train (with masks) and val
#   WEIGHTS  ImageNet weights of ResNet-50 with torchvision's names
# OUT=DIR (or --work_dir DIR) puts everything it leaves elsewhere than result/small_run, below the folder it is called in; PYTHON=... names the interpreter.
# The settings are chosen so that few images suffice: smaller crops, scales and batches, more CAM epochs. The rest is as
# published. It can be stopped and run again: it goes on where it was.
set -euo pipefail
. "$(dirname "$0")/words.sh"
if [ $# -lt 2 ]; then sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
root=$1 weights=$2; shift 2
out=${OUT:-result/small_run} before=''
for word in "$@"; do [ "$before" != --work_dir ] || out=$word; before=$word; done

"$python" "$checkout/run_sample.py" --voc12_root "$root" --pretrained "$weights" --precision bf16 \
  --train_list train_aug --val_list val --infer_list train --eval_set train \
  --cam_crop_size 256 --cam_resize_long 160 320 --cam_batch_size 8 --cam_num_epoches 10 --cam_scales 0.5 0.75 1.0 \
  --amn_crop_size 256 --amn_batch_size 8 --amn_num_epoches 3 \
  --irn_crop_size 256 --irn_batch_size 8 --irn_num_epoches 3 \
  --num_workers 2 --work_dir "$out" \
  --train_cam_pass --make_cam_pass --eval_cam_pass --cam_to_ir_label_pass --eval_ir_label_pass \
  --train_amn_pass --make_amn_cam_pass --eval_amn_cam_pass --amn_cam_to_ir_label_pass --eval_amn_ir_label_pass \
  --train_irn_pass --make_sem_seg_pass --walked_out_dir "$out/result/walked" --eval_sem_seg_pass \
  --analyze_threshold_pass --report_pass "$@"
"$python" "$checkout/script/score_table.py" "$out/result/scores.jsonl"
echo "The report, for a browser: $out/result/report/index.html"
