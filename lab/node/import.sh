#!/bin/sh
# import.sh TREE STORE DIRECTORY: imports DIRECTORY/images.tar into the containerd root STORE, with the containerd of the
# Debian tree TREE, in mount and process namespaces of its own.
set -eu
tree=$1 store=$2 directory=$3
if [ "${4:-}" != inside ]; then
    exec unshare --mount --pid --fork --kill-child --propagation private "$0" "$tree" "$store" "$directory" inside
fi
mount -t tmpfs tmpfs "$tree/tmp"
mount -t tmpfs tmpfs "$tree/run"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount --bind "$store" "$tree/var/lib/containerd"
mkdir "$tree/tmp/import"
mount --bind "$directory" "$tree/tmp/import"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
chroot "$tree" containerd --log-level error &
containerd=$!
for _ in $(seq 100); do
    chroot "$tree" ctr version >/dev/null 2>&1 && break
    sleep 0.1
done
chroot "$tree" ctr --namespace k8s.io images import --snapshotter overlayfs /tmp/import/images.tar >/dev/null
kill "$containerd"
wait "$containerd" || true
