# For the scripts beside it, which read it before they do anything: where --help or -h is among the
# words of the command line, the script's opening comment is printed, and that is all.
for word in "$@"; do
  case $word in
    -h | --help)
      while IFS= read -r line && [ "${line#\#}" != "$line" ]; do
        case $line in '#!'*) ;; *) line=${line#\#}; echo "${line# }" ;; esac
      done < "$0"
      exit 0 ;;
  esac
done
