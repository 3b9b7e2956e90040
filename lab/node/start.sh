#!/bin/sh
# start.sh: a node's first process. Starts containerd and, by kubeadm's own phases, a control plane and a kubelet.
# In /lab: env (NAME, ADDRESS, NODE_PODS, CONTROL_PLANE_ONLY), kubeadm.yml, containerd.toml, bin/.
set -eu
# shellcheck source=/dev/null
. /lab/env
export PATH=/lab/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
echo "$NAME" > /proc/sys/kernel/hostname
ip link set lo up
for setting in net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0; do sysctl -qw "$setting"; done
mkdir -p /etc/cni/net.d /opt/cni/bin /var/log/pods /var/log/containers /run/netns /tmp
mount -t tmpfs tmpfs /tmp
cp -n /usr/lib/cni/* /opt/cni/bin/
printf '127.0.0.1 localhost\n%s %s\n' "$ADDRESS" "$NAME" > /etc/hosts
echo "nameserver $ADDRESS" > /etc/resolv.conf
cat > /etc/cni/net.d/10-ptp.conflist << EOT
{"cniVersion": "1.0.0", "name": "ptp", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "$NODE_PODS"}]],
   "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOT

phase() { kubeadm init phase "$@" --config /lab/kubeadm.yml; }
if [ ! -e /etc/kubernetes/scheduler.conf ]; then
    phase certs all
    phase control-plane all
    phase etcd local
    # Last, and scheduler.conf the last of it: a start that was interrupted before does all of this again.
    phase kubeconfig all
fi

# The arguments of a static pod's container, from the manifest that kubeadm wrote.
arguments() { busybox sed -n '/- command:/,/image:/s/^    - //p' "/etc/kubernetes/manifests/$1.yaml" | tail -n +2; }
static_pod() { arguments "$1" | tr '\n' '\0' | busybox xargs -0 "$1"; }
# Runs a program again whenever it ends, as systemd or a kubelet would: kubelet ends while containerd is still starting.
keep() {
    log=/var/log/$1.log
    shift
    while true; do
        "$@" >> "$log" 2>&1 || true
        sleep 1
    done
}
if [ "$CONTROL_PLANE_ONLY" = true ]; then
    for component in etcd kube-apiserver kube-controller-manager kube-scheduler; do
        keep "$component" static_pod "$component" &
    done
    wait
fi

keep containerd containerd --config /lab/containerd.toml &
for _ in $(seq 100); do
    ctr version > /dev/null 2>&1 && break
    sleep 0.1
done
[ -e /var/lib/kubelet/config.yaml ] || phase kubelet-start
keep kubelet kubelet --config=/var/lib/kubelet/config.yaml --kubeconfig=/etc/kubernetes/kubelet.conf \
    --hostname-override="$NAME" --node-ip="$ADDRESS" &
wait
