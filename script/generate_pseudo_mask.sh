#!/usr/bin/env bash
# All stages up to the pseudo-masks with the published settings, the threshold analysis and the report, ending with a table of
# the scores beside the published ones.
# usage: bash script/generate_pseudo_mask.sh [ROOT] [--gpus N] [--from_released] [--segmentation] [flags of run_sample.py]
#   ROOT             the folder VOC2012 (else VOC12_ROOT, else ./VOCdevkit/VOC2012)
#   --gpus N         share the work among N GPUs of this machine, or 'all' (else the first GPU, or the CPU)
#   --from_released  no training: starts from the authors' files sess/res50_amn.pth.pth, sess/res50_irn.pth and
#                    result/ir_label (CAM's refined seeds of train_aug)
#   --segmentation   then train the segmentation network, predict val and score it (script/train_segmentation.sh); with
#                    --seg_label_dir DIR that alone, on the label maps there
# Pseudo-masks are made for train, scored, and then for train_aug, to train a segmentation network on; the walks are kept in
# result/walked (--walked_out_dir). It can be stopped and run again: the same command goes on. PYTHON names the interpreter
# (else .venv, else python3). Paths are those of the folder it is called in.
set -euo pipefail
. "$(dirname "$0")/words.sh"
root=() released='' segmentation='' flags=() gpus=1 expected=''
for word in "$@"; do
  if [ "$expected" = gpus ]; then gpus=$word; expected=''
  elif [ "$word" = --gpus ]; then expected=gpus
  elif [ "$word" = --from_released ]; then released=yes
  elif [ "$word" = --segmentation ]; then segmentation=yes
  elif [ "$word" = --help ] || [ "$word" = -h ]; then sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0
  elif [ ${#root[@]} = 0 ] && [ ${#flags[@]} = 0 ] && [ "${word#-}" = "$word" ]; then root=(--voc12_root "$word")
  else flags+=("$word"); fi
done
[ -z "$expected" ] || gpus=''

amn=(--make_amn_cam_pass --eval_amn_cam_pass)
irn=(--make_sem_seg_pass --eval_sem_seg_pass --analyze_threshold_pass --report_pass)
if [ -n "$released" ]; then
  stages=("${amn[@]}" "${irn[@]}")
else
  stages=(--train_cam_pass --make_cam_pass --eval_cam_pass --cam_to_ir_label_pass --eval_ir_label_pass
          --train_amn_pass "${amn[@]}" --amn_cam_to_ir_label_pass --eval_amn_ir_label_pass
          --train_irn_pass "${irn[@]}")
fi
[ "$gpus" != all ] || gpus=$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')
case $gpus in ''|*[!0-9]*|0) echo "error: --gpus $gpus: a number of GPUs, or all" >&2; exit 2 ;; esac
run=("$python" "$checkout/run_sample.py")
[ "$gpus" = 1 ] || run=("$python" -m torch.distributed.run --standalone --nproc_per_node "$gpus" -- "$checkout/run_sample.py")
scores='' work_dir=. label_dir='' seg_out=''
for ((number = 0; number < ${#flags[@]}; number++)); do
  case ${flags[number]} in
    --scores_file) scores=${flags[number + 1]-} ;;
    --work_dir) work_dir=${flags[number + 1]-} ;;
    --seg_label_dir) label_dir=${flags[number + 1]-} ;;
    --seg_out_dir) seg_out=${flags[number + 1]-} ;;
  esac
done

if [ -z "$segmentation" ] || [ -z "$label_dir" ]; then
  # the published thresholds (CAM 0.15, 0.30, 0.05; AMN 0.25, 0.45, 0.15) are each stage's own defaults
  walked=(--walked_out_dir "$work_dir/result/walked")
  "${run[@]}" ${root[@]+"${root[@]}"} "${stages[@]}" "${walked[@]}" ${flags[@]+"${flags[@]}"}
  "${run[@]}" ${root[@]+"${root[@]}"} --make_sem_seg_pass --infer_list voc12/train_aug.txt "${walked[@]}" \
    ${flags[@]+"${flags[@]}"}
fi
if [ -n "$segmentation" ]; then
  "${run[@]}" ${root[@]+"${root[@]}"} --train_seg_pass --make_seg_pass --eval_seg_pass ${flags[@]+"${flags[@]}"} \
    --seg_scales 1 --seg_crf False --seg_out_dir "${seg_out:-$work_dir/result/seg}_one_scale"
  "${run[@]}" ${root[@]+"${root[@]}"} --make_seg_pass --eval_seg_pass --seg_crf ${flags[@]+"${flags[@]}"}
fi
"$python" "$checkout/script/score_table.py" "${scores:-$work_dir/result/scores.jsonl}" --published
