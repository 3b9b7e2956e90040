#!/bin/sh
# enter.sh NODE TREE BIN...: makes the node's root file system in fresh namespaces and becomes its start.sh.
# NODE is the node's directory, TREE the Debian tree below it, each BIN a directory of programs.
set -eu
node=$1 tree=$2
shift 2
root=$node/root
mkdir -p "$root" "$node/upper" "$node/work" "$node/containerd" "$node/kubelet" "$node/etcd"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$node/upper,workdir=$node/work" "$root"
mkdir -p "$root/var/lib/containerd" "$root/var/lib/kubelet" "$root/var/lib/etcd" "$root/lab" "$root/old"
# Not on the overlay: containerd's own overlays cannot lie on one.
mount --bind "$node/containerd" "$root/var/lib/containerd"
mount --bind "$node/kubelet" "$root/var/lib/kubelet"
mount --bind "$node/etcd" "$root/var/lib/etcd"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/lab"
cp "${0%/*}/start.sh" "$node/env" "$node/kubeadm.yml" "$node/containerd.toml" "$root/lab/"
mkdir "$root/lab/bin"
for directory in "$@"; do
    for program in "$directory"/*; do
        name=${program##*/}
        touch "$root/lab/bin/$name"
        mount --bind "$program" "$root/lab/bin/$name"
    done
done
# The cgroup namespace makes the node's own cgroup the root of every hierarchy mounted in it.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mkdir -p "$root/sys/fs/cgroup/init"
    echo 0 > "$root/sys/fs/cgroup/init/cgroup.procs"
    sed 's/[^ ][^ ]*/+&/g' "$root/sys/fs/cgroup/cgroup.controllers" > "$root/sys/fs/cgroup/cgroup.subtree_control"
else
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    awk '$3 == "cgroup" {print $2}' /proc/mounts | while read -r hierarchy; do
        case $hierarchy in /sys/fs/cgroup/*) ;; *) continue ;; esac
        name=${hierarchy##*/}
        mkdir "$root/sys/fs/cgroup/$name"
        options=$name
        [ "$name" != systemd ] || options=none,name=systemd
        mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$name"
    done
fi
cd "$root"
pivot_root . old
cd /
umount -l /old
mount --make-rshared /
exec /bin/sh /lab/start.sh
