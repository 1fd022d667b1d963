#!/usr/bin/env bash
# All stages in order on MS-COCO 2014 with the published settings, the report, and a table of the scores beside the published ones.
# usage: bash script/generate_pseudo_mask_coco.sh ROOT [--gpus N] [further flags of run_sample.py]
#   ROOT      the folder that holds COCO's images and what `python -m coco14.prepare --coco_root ROOT` made
#   --gpus N  share the work among N GPUs of this machine, or 'all' (else the first GPU, or the CPU)
# Everything is trained on, made for and scored on train2014. It can be stopped and run again: the same command goes on.
# PYTHON names the interpreter (else .venv, else python3).
# As published for COCO: --sem_seg_bg_thres 0.22, no canvas around IRN's images. Ours: activations in 256 steps, for the disk;
# the score after AMN's epochs and IRN's mean displacement (neither of which the authors have for COCO) come from every
# 100th image alone.
set -euo pipefail
. "$(dirname "$0")/words.sh"
root='' flags=() gpus=1 expected='' scores='' work_dir=.
for word in "$@"; do
  case $expected in
    --gpus) gpus=$word; expected=''; continue ;;
    --scores_file) scores=$word ;;
    --work_dir) work_dir=$word ;;
  esac
  expected=''
  case $word in
    --help|-h) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --gpus) expected=$word; continue ;;
    --scores_file|--work_dir) expected=$word ;;
  esac
  if [ -z "$root" ] && [ ${#flags[@]} = 0 ] && [ "${word#-}" = "$word" ]; then root=$word; else flags+=("$word"); fi
done
[ "$expected" != --gpus ] || gpus=''
if [ -z "$root" ]; then sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
list=$root/ImageSets/train2014.txt
[ -f "$list" ] || { echo "error: $list is missing: python -m coco14.prepare --coco_root $root makes it" >&2; exit 1; }
[ "$gpus" != all ] || gpus=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')
case $gpus in ''|*[!0-9]*|0) echo "error: --gpus $gpus: a number of GPUs, or all" >&2; exit 2 ;; esac
run=("$python" "$checkout/run_sample.py")
[ "$gpus" = 1 ] || run=("$python" -m torch.distributed.run --standalone --nproc_per_node "$gpus" -- "$checkout/run_sample.py")
mkdir -p "$work_dir/result"
awk 'NR % 100 == 1' "$list" > "$work_dir/result/every_100th.txt"
settings=(--dataset coco14 --data_root "$root" --cam_dtype uint8 --sem_seg_bg_thres 0.22 --sem_seg_canvas 0)

"${run[@]}" "${settings[@]}" --infer_list "$work_dir/result/every_100th.txt" \
  --train_cam_pass --make_cam_pass --eval_cam_pass --cam_to_ir_label_pass --eval_ir_label_pass \
  --train_amn_pass --make_amn_cam_pass --eval_amn_cam_pass --amn_cam_to_ir_label_pass --eval_amn_ir_label_pass \
  --train_irn_pass ${flags[@]+"${flags[@]}"}
"${run[@]}" "${settings[@]}" --make_sem_seg_pass --eval_sem_seg_pass --analyze_threshold_pass --report_pass \
  ${flags[@]+"${flags[@]}"}

"$python" "$checkout/script/score_table.py" "${scores:-$work_dir/result/scores.jsonl}" --published
