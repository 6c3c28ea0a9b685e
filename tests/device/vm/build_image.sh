#!/usr/bin/env bash
# Builds the disk, the kernel and the headers of an arm64 Debian device for QEMU:
#
#   build_image.sh OUT SOURCE...      SOURCE: apt's lists of a Debian mirror, as in /etc/apt/sources.list.d
#
# OUT gets root.ext4, vmlinuz, initrd.gz, kernel (the release's name), and headers/ to build modules against.
# Needs root, mmdebstrap, arch-test, qemu-user-static, kmod, e2fsprogs, cpio. Takes some minutes, once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1
shift
work=$out/work
suite=bookworm
arch=arm64
root_mb=1200
packages=systemd,systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,kmod,iproute2,procps,netbase,tzdata,ca-certificates
packages+=,python3,python3-venv,e2fsprogs,qemu-guest-agent
masked='apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    systemd-networkd-wait-online.service systemd-resolved.service systemd-timesyncd.service systemd-pstore.service
    getty@tty1.service serial-getty@ttyAMA0.service systemd-firstboot.service sys-kernel-debug.mount
    sys-kernel-tracing.mount dev-hugepages.mount systemd-binfmt.service proc-sys-fs-binfmt_misc.automount'
# What this device's hardware needs, and what people put into releases for it.
modules='virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio-rng ext4 ipv6 autofs4 dummy fuse overlay crc32c_generic'

# apt for the other architecture, with a memory of its own: this machine's stays as it is.
apt=(-o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o "Dir::State=$work/apt/state"
    -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache" -o "Acquire::Languages=none"
    -o APT::Sandbox::User=root -o "Acquire::Check-Valid-Until=false" -o "Acquire::Check-Date=false")

prepare_apt() {
    mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
    : >"$work/apt/status"
    apt-get "${apt[@]}" -qq update
}

depends() { # PACKAGE PREFIX: the package with that prefix that PACKAGE depends on
    apt-cache "${apt[@]}" depends "$1" | sed -n "s/.*Depends: \\($2[^ ]*\\).*/\\1/p" | head -n 1
}

unpack() { # FOLDER PACKAGE...
    local into=$1 deb
    shift
    mkdir -p "$work/debs"
    (cd "$work/debs" && rm -f ./*.deb && apt-get "${apt[@]}" -qq download "$@")
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$into"; done
}

kernel() {
    local image
    image=$(depends "linux-image-cloud-$arch" linux-image-)
    unpack "$work/kernel" "$image" busybox-static
    ls "$work/kernel/lib/modules" >"$out/kernel"
    release=$(cat "$out/kernel")
    cp "$work/kernel/boot/vmlinuz-$release" "$out/vmlinuz"
    depmod -b "$work/kernel" "$release"
}

# The headers are of the device's architecture; the programs that build with them are of this machine's.
headers() {
    local flavour=linux-headers-$release common kbuild
    common=$(depends "$flavour" linux-headers-.*-common)
    kbuild=$(depends "$flavour" linux-kbuild-)
    unpack "$out/headers" "$flavour" "$common"
    (cd "$work/debs" && rm -f ./*.deb && apt-get -o APT::Sandbox::User=root -qq download "$kbuild")
    dpkg-deb -x "$work"/debs/*.deb "$out/headers"
    local tools
    tools=$(echo "$out"/headers/usr/lib/linux-kbuild-*)
    for folder in "$out/headers/usr/src/$flavour" "$out/headers/usr/src/$common"; do
        rm -rf "$folder/scripts" "$folder/tools"
        ln -s "../../lib/${tools##*/}/scripts" "$folder/scripts"
        ln -s "../../lib/${tools##*/}/tools" "$folder/tools"
    done
    sed -i "s#/usr/src/#\$(dir \$(abspath \$(lastword \$(MAKEFILE_LIST))))../#" "$out/headers/usr/src/$flavour/Makefile"
}

initrd() { # busybox and the modules of the disk
    local tree=$work/initrd name file
    mkdir -p "$tree"/{bin,dev,proc,sys,modules,root}
    cp "$work/kernel/bin/busybox" "$tree/bin/"
    : >"$tree/modules/order"
    for name in virtio_mmio virtio_pci virtio_blk ext4; do
        modprobe -d "$work/kernel" -S "$release" --show-depends "$name" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' | while read -r file; do
        cp "$file" "$tree/modules/"
        basename "$file" >>"$tree/modules/order"
    done
    install -m 755 "$here/initrd-init" "$tree/init"
    (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$out/initrd.gz"
}

binfmt() { # let programs of the other architecture run below a chroot
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] ||
        tr -d '\n' </usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
}

tree() {
    binfmt
    # What it mounts is gone with it, however it ends.
    unshare --mount mmdebstrap --quiet --mode=root --format=directory --arch=$arch --variant=minbase --include=$packages \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        $suite "$work/tree" "$@"
    rm -rf "$work/tree"/etc/apt/sources.list "$work/tree"/etc/apt/sources.list.d/* "$work/tree"/var/lib/apt/lists/* \
        "$work/tree"/var/cache/apt/*
}

settle() { # what a device's image has beside the packages
    local root=$work/tree units=$work/tree/etc/systemd/system name file
    for name in $modules; do
        modprobe -d "$work/kernel" -S "$release" --show-depends "$name" 2>/dev/null | awk '$1 == "insmod" { print $2 }'
    done | sort -u | while read -r file; do
        install -D -m 644 "$file" "$root/usr/lib/modules/${file#"$work/kernel/lib/modules/"}"
    done
    cp "$work/kernel/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$root/usr/lib/modules/$release/"
    depmod -b "$root" "$release"
    echo device >"$root/etc/hostname"
    echo '127.0.0.1 localhost device' >"$root/etc/hosts"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    printf '[Match]\nName=e*\n[Network]\nDHCP=no\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\n' \
        >"$root/etc/systemd/network/10-device.network"
    mkdir -p "$units/multi-user.target.wants"
    for name in systemd-networkd qemu-guest-agent; do
        ln -sf "/lib/systemd/system/$name.service" "$units/multi-user.target.wants/"
    done
    for name in $masked; do ln -sf /dev/null "$units/$name"; done
    truncate -s "${root_mb}M" "$out/root.ext4"
    mke2fs -q -t ext4 -L rootfs -d "$root" "$out/root.ext4"
}

mkdir -p "$work"
prepare_apt
kernel
headers
initrd
tree "$@"
settle
rm -rf "$work"
