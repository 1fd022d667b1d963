# For the scripts beside it, which source it without words of its own: makes --flag=value two words of theirs, and refuses
# --repeat, whose files the commands after it would not find.
words=()
for word in "$@"; do
  case $word in
    --repeat|--repeat=*)
      echo "error: --repeat: not in this script, whose commands read each other's files; give it to run_sample.py" >&2; exit 2 ;;
    --[a-z]*=*) words+=("${word%%=*}" "${word#*=}") ;;
    *) words+=("$word") ;;
  esac
done
set -- ${words[@]+"${words[@]}"}
