# The shell of a page, and the first process of its machine. Orders come on
# descriptor 3, a line each; each is answered by a line on descriptor 4.
dir=$1
page=$dir/.page
mount -t proc proc /proc
ip link set lo up

# What a page changes here is its own. Where the upper layer cannot be an
# overlay's, as for containerd's snapshots, a directory stands in its place.
for at in /etc /usr/local /var/lib; do
  upper=$page/over$at
  mkdir -p "$upper" "$page/work$at"
  mount -t overlay overlay -o "lowerdir=$at,upperdir=$upper,workdir=$page/work$at" $at
done
mount -t tmpfs tmpfs /run
for at in /var/lib/containerd /var/lib/mezzo /var/lib/mezzo-agent; do
  mkdir -p "$at" "$page/plain$at"
  mount --bind "$page/plain$at" $at
done
mkdir -p "$dir/home" "$dir/tmp"
export HOME=$dir/home TMPDIR=$dir/tmp
cd "$HOME" || exit 1

failed=0
(set -e; . "$page/setup.sh") </dev/null 3<&- 4>&- || exit 1
echo ready >&4

# Each job has a process group of its own, as in a terminal.
set -m
declare -A job
trap 'failed=$?' ERR
while read -r -u 3 order n; do
  case $order in
  run)
    failed=0
    { eval "$(<"$page/$n.sh")"; } >"$page/$n.out" 2>&1 </dev/null 3<&- 4>&-
    echo $failed >&4
    ;;
  stay)
    bash "$page/$n.sh" >"$page/$n.out" 2>&1 </dev/null 3<&- 4>&- &
    job[$n]=$!
    echo 0 >&4
    ;;
  runs)
    if kill -0 -- "-${job[$n]}" 2>/dev/null; then echo 0; else wait "${job[$n]}"; echo "ended $?"; fi >&4
    ;;
  interrupt)
    status=0
    if kill -INT -- "-${job[$n]}" 2>/dev/null; then wait "${job[$n]}" || status=$?; fi
    echo $status >&4
    ;;
  esac
done
trap - ERR
set +m
exec 4>&- 2>/dev/null

# What is left is killed; then its cgroups are empty.
groups=$(cat /proc/[0-9]*/cgroup 2>/dev/null | grep -o '/mezzo/.*' | sort -ru)
kill -9 -1 2>/dev/null
while set -- /proc/[0-9]*; [ $# -gt 1 ]; do wait; done 2>/dev/null
for group in $groups; do
  while [ "$group" != /mezzo ] && [ "$group" != / ]; do
    for at in /sys/fs/cgroup"$group" /sys/fs/cgroup/*"$group"; do [ -d "$at" ] && rmdir "$at"; done
    group=$(dirname "$group")
  done
done 2>/dev/null
exit 0
