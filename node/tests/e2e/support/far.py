"""A wire that takes its time: two TUN devices, and what goes into one comes out of the other a while later.

    far.py NEAR FAR NAMESPACE DELAY_MS

Both are made in the namespace that this runs in; FAR is moved to NAMESPACE. Says `ready` when both are there, and ends with its
standard input.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def main():
    near, far, namespace, delay = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) / 1000
    ends = {tun(near): None, tun(far): None}
    one, other = ends
    ends[one], ends[other] = other, one
    subprocess.run(["ip", "link", "set", far, "netns", namespace], check=True)
    print("ready", flush=True)
    # Of one delay for all: what came first is due first.
    waiting = deque()
    while True:
        wait = None if not waiting else max(0.0, waiting[0][0] - time.monotonic())
        ready, _, _ = select.select([*ends, sys.stdin], [], [], wait)
        if sys.stdin in ready:
            return
        for end in (end for end in ends if end in ready):
            try:
                waiting.append((time.monotonic() + delay, ends[end], os.read(end, 65536)))
            except BlockingIOError:
                pass
        while waiting and waiting[0][0] <= time.monotonic():
            _, end, packet = waiting.popleft()
            try:
                os.write(end, packet)
            except OSError:
                # A device that is down, or full, loses packets, as wires do.
                pass


main()
