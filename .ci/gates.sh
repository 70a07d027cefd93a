# For .ci/run and .ci/proof: gates, each with a budget in seconds, and at the end one table of all of them.
rows=()

measure() {  # measure <budget in seconds> <name> <command ...>; its status is the command's
    local budget=$1 name=$2 began=$SECONDS status=0
    shift 2
    printf '\n==== %s\n' "$name"
    "$@" || status=$?
    local took=$((SECONDS - began)) verdict=passed
    [ $took -le "$budget" ] || verdict='passed, over its budget'
    [ $status = 0 ] || verdict="FAILED ($status)"
    rows+=("$(printf '%7d %7d  %-23s %s' $took "$budget" "$verdict" "$name")")
    printf '==== %s: %s, %d s of %d s\n' "$name" "$verdict" $took "$budget"
    return $status
}

gate() { measure "$@" || exit $?; }  # the same, and the script ends when the command fails

skip() {  # skip <name> <reason>
    rows+=("$(printf '%7s %7s  %-23s %s' - - "not run" "$1: $2")")
    printf '\n==== %s: not run, %s\n' "$1" "$2"
}

table() {  # what has been run so far
    printf '\n%7s %7s  %-23s %s\n' seconds budget verdict gate
    printf '%s\n' "${rows[@]}"
    printf '%7d in all\n' $SECONDS
}

interpreter() {  # the path of python<version>, from PATH or from pyenv; nothing where it is not installed
    local found
    for found in "$(command -v "python$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        [ -x "$found" ] && "$found" -c '' 2>/dev/null && echo "$found" && return
    done
    return 0
}
