"""What Python's own loop over os.splice costs: `copy.py IN OUT`, of which one is a pipe. It prints as `copy` does."""

import os
import select
import sys
import time

MOST = 1 << 30

source, target = map(int, sys.argv[1:])
os.set_blocking(source, True)
os.set_blocking(target, True)
select.select([source], [], [])

start, cpu = time.monotonic_ns(), time.process_time_ns()
copied = 0
while moved := os.splice(source, target, MOST):
    copied += moved
print(time.monotonic_ns() - start, time.process_time_ns() - cpu, copied)
