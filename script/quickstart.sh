#!/usr/bin/env bash
# From a fresh machine to pseudo-masks in minutes, on drawn images: makes the environment, draws the sample, pre-trains a
# backbone on it, runs every stage up to the pseudo-masks and prints the scores. Leaves result/quickstart/sheet.png and the
# page result/quickstart/result/report/index.html.
# usage: bash script/quickstart.sh [further flags of run_sample.py]. It can be stopped and run again.
set -euo pipefail
. "$(dirname "$0")/words.sh"
out=result/quickstart
data=$out/sample
bash "$checkout/script/make_env.sh"
python=$checkout/.venv/bin/python
since=$SECONDS

"$python" -m voc12.sample "$data"
[ -f "$out/backbone.pth" ] || "$python" "$checkout/script/pretrain_backbone.py" --out "$out/backbone.pth"
"$python" "$checkout/run_sample.py" --voc12_root "$data" --pretrained "$out/backbone.pth" \
  --train_list train_aug --val_list val --infer_list train --eval_set train \
  --cam_crop_size 112 --cam_resize_long 80 160 --cam_num_epoches 5 \
  --cam_conf_fg_thres 0.2 \
  --amn_crop_size 112 --amn_num_epoches 8 --amn_learning_rate 5e-5 1e-3 \
  --irn_crop_size 112 --irn_batch_size 8 --irn_num_epoches 12 --irn_learning_rate 0.5 \
  --sem_seg_canvas 112 --exp_times 4 \
  --work_dir "$out" \
  --train_cam_pass --make_cam_pass --eval_cam_pass --cam_to_ir_label_pass --eval_ir_label_pass \
  --train_amn_pass --make_amn_cam_pass --eval_amn_cam_pass --amn_cam_to_ir_label_pass --eval_amn_ir_label_pass \
  --train_irn_pass --make_sem_seg_pass --walked_out_dir "$out/result/walked" --eval_sem_seg_pass \
  --analyze_threshold_pass --report_pass "$@"
"$python" "$checkout/script/contact_sheet.py" --voc12_root "$data" --list train --work_dir "$out" --out "$out/sheet.png"
"$python" "$checkout/script/score_table.py" "$out/result/scores.jsonl"
echo "Pictures: $out/sheet.png. The report, for a browser: $PWD/$out/result/report/index.html"
echo "From a folder of your own photographs to masks in three commands: $checkout/README.md, 'Your own photographs'."
echo "Computing took $(((SECONDS - since) / 60)) min $(((SECONDS - since) % 60)) s."
