#!/usr/bin/env bash
# Builds the test driver against a kernel's headers: two good versions, and one for each way to go wrong.
#
#   build.sh HEADERS OUT
#
# HEADERS is the kernel's build directory (linux-headers-<release>). ARCH and CROSS_COMPILE are as Kbuild has them, for
# example ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-. Writes OUT/<name>/<release>/fairlead_demo.ko, so that each OUT/<name>
# can be packed as it is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
headers=$(realpath "$1")
out=$2

build() { # NAME VERSION [FLAG]
    local place release
    place=$(mktemp -d)
    cp "$here/fairlead_demo.c" "$place/"
    printf 'obj-m := fairlead_demo.o\nccflags-y := -DDEMO_VERSION=\\"%s\\" %s\n' "$2" "${3:+-D$3}" >"$place/Makefile"
    make --silent -C "$headers" M="$place" modules
    release=$(modinfo -F vermagic "$place/fairlead_demo.ko" | cut -d ' ' -f 1)
    mkdir -p "$out/$1/$release"
    "${CROSS_COMPILE:-}strip" --strip-debug -o "$out/$1/$release/fairlead_demo.ko" "$place/fairlead_demo.ko"
    rm -r "$place"
}

build one 1.0
build two 2.0
build fails 3.0 DEMO_FAILS
build panics 4.0 DEMO_PANICS
build oopses 5.0 DEMO_OOPSES
