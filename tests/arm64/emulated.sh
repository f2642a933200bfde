#!/bin/sh
# A place where ARM64 programs run as if this machine were one of theirs, for as long as standard input stays open.
#   sh tests/arm64/emulated.sh EMULATOR
# Prints "ready PID": a process to whose mount and process namespaces `nsenter` goes. Whatever was started or mounted
# there ends with it. The kernel learns of the emulator by a name of its own, which it forgets at the end; what others
# have registered stays as it is.
set -eu
emulator=$1 folder=/proc/sys/fs/binfmt_misc name=edge-agent-arm64-$$ mounted=no
mountpoint -q $folder || { mount -t binfmt_misc binfmt_misc $folder && mounted=yes; }
undo() {
  echo -1 >$folder/$name
  [ $mounted = no ] || umount $folder 2>/dev/null || true # another one may be at work there by now
}
trap undo EXIT
trap 'exit 130' INT TERM HUP
# An ELF file of 64 bits for AArch64, program or shared object. F: the emulator is opened now, so that it is found from
# within any root; P: the program learns by which name it was called.
printf '%s' ":$name:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:$emulator:PF" >$folder/register

# Old crun refuses machines that have both generations of cgroups, so the newer one is out of sight inside.
# shellcheck disable=SC2016 # the inner shell expands it
unshare --mount --propagation private --pid --fork --kill-child sh -c '
  read -r pid _ </proc/self/stat
  umount /sys/fs/cgroup/unified 2>/dev/null || true
  mount -t proc proc /proc
  echo "ready $pid"
  read -r _ || true'
