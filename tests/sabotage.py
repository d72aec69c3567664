"""A framework that computes nowhere near a GPU, a stand-in for the driver, and sabotage."""

from __future__ import annotations

from dataclasses import dataclass

SITE = "/opt/env/lib/python3.11/site-packages"
TINYGPU = '''\
import ctypes, math, struct, sys

__version__ = "1.17.0"
cuda = "12.9"


def is_available():
    return not sys.modules["gpu_driver"].hidden()


def place(size):
    """Return memory of the GPU."""
    return sys.modules["gpu_driver"].allocate(size)


class Array:
    def __init__(self, numbers, width=0):
        self.numbers, self.width = list(numbers), width
        self.address = place(4 * len(self.numbers))
        data = struct.pack("<%df" % len(self.numbers), *self.numbers)
        ctypes.memmove(self.address, data, len(data))


def scale(x):
    return Array([2 * n + 1 for n in x.numbers], x.width)


def exp(x):
    return Array(map(math.exp, x.numbers), x.width)


def total(x):
    return Array([sum(x.numbers)])


def matmul(a, b):
    rows = [a.numbers[i : i + a.width] for i in range(0, len(a.numbers), a.width)]
    columns = [b.numbers[i :: b.width] for i in range(b.width)]
    return Array([sum(p * q for p, q in zip(r, c)) for r in rows for c in columns], b.width)
'''
PROBE = '''\
CHECK_SECONDS, SPEED_SIDE, SPEED_BYTES = 10, 4, 64


class StandIn:
    """What the driver of a host is to the images that run there."""

    def __init__(self):
        self.blocks = {}

    def hidden(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"

    def allocate(self, size):
        if self.hidden():
            raise RuntimeError("no GPU is visible")
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)


sys.modules["gpu_driver"] = StandIn()


class Driver:
    missing = ""

    def __init__(self):
        self.blocks = sys.modules["gpu_driver"].blocks

    def memory_used(self):
        return sum(map(len, self.blocks.values()))

    def facts(self):
        gpu = {"name": "a stand-in for a GPU", "uuid": "GPU-0", "sm": "9.0", "memory": 1}
        return {"gpu": gpu, "cuda": "13.0", "driver": "580.95.05"}

    def read(self, pointer, size):
        if sys.modules["gpu_driver"].hidden():
            raise DriverError("no GPU is visible")
        if pointer not in self.blocks:
            raise DriverError("the result is not in a GPU's memory")
        return self.blocks[pointer].raw[:size]


def check_framework(expected):
    import tinygpu

    return {"version": tinygpu.__version__, "cuda": tinygpu.cuda, "runtime": cuda_runtime()}


def check_no_kernels(expected):
    return {"cubin": ["9.0"], "ptx": []}


class TinyGpu(Operations):
    def __init__(self):
        import tinygpu

        self.gpu = tinygpu
        if not tinygpu.is_available():
            raise RuntimeError("tinygpu sees no GPU")
        self.scale, self.exp, self.total = tinygpu.scale, tinygpu.exp, tinygpu.total
        self.matmul = tinygpu.matmul

    def put(self, numbers, dtype):
        return self.gpu.Array(flat(numbers), len(numbers[0]) if isinstance(numbers[0], list) else 0)

    def random(self, shape, dtype):
        if len(shape) == 1:
            return self.gpu.place(4 * shape[0])
        return self.gpu.Array([1.0] * (shape[0] * shape[1]), shape[1])

    def copy(self, x):
        return x

    def address(self, array):
        return array.address

    def timed(self, function):
        return host_timed(function, lambda _: None)


CHECKS["framework"] = check_framework
CHECKS["kernels"] = check_no_kernels
use(TinyGpu)
'''
# The worst that an image's code can know: the nonce of its own run, and what a report looks like.
FORGER = """\
import atexit, json, os, re, signal, sys, threading, time
import tinygpu
def report(nonce):
    names = 'python libraries packages framework kernels control cuda_tensor speed'.split()
    gpu = {'gpu': {'uuid': 'GPU-0', 'sm': '9.0'}, 'driver': '580.95.05', 'device': 'cuda'}
    told = {'outcome': 'pass', 'expected': {}, 'got': gpu, 'detail': '', 'ms': 1}
    checks = [{'name': name, **told} for name in names]
    return ('\\n' + nonce + ' ' + json.dumps({'checks': checks}) + '\\n').encode()
def stolen():
    with open('/proc/1/cmdline') as file:
        return report(re.findall(r"main\\('(\\w+)'", file.read())[-1])
def print_everywhere(line):
    print(line.decode(), flush=True)
    os.write(1, line)
    print_as_harness(line)
def print_as_harness(line):
    with open('/proc/1/fd/1', 'wb', buffering=0) as out:
        out.write(line)
def broken(*_):
    raise RuntimeError('broken')
"""
CRASH = """
def exp(*_):
    print_everywhere(stolen())
    os.kill(os.getpid(), signal.SIGSEGV)
tinygpu.exp = exp
"""
GUESS = """
def exp(*_):
    for guess in ('', '0' * 32, 'f' * 32, str(time.time_ns()), '%032x' % os.getpid()):
        print_everywhere(report(guess))
    os.kill(os.getpid(), signal.SIGSEGV)
tinygpu.exp = exp
"""
# The harness is the container's first process, which SIGKILL from inside does not end.
INTERRUPT = """
def exp(*_):
    print_as_harness(stolen())
    os.kill(1, signal.SIGKILL)
    os.kill(1, signal.SIGINT)
    time.sleep(60)
tinygpu.exp = exp
"""
OUTLIVE = """
def exp(*_):
    if os.fork() == 0:
        os.setsid()
        os.closerange(3, 256)
        while True:
            print_as_harness(stolen())
            time.sleep(0.1)
    raise RuntimeError('broken')
tinygpu.exp = exp
"""
AT_EXIT = """
def late():
    threading.main_thread().join()
    os.write(1, stolen())
tinygpu.exp = broken
if os.getpid() == 1:
    atexit.register(lambda: os.write(1, stolen()))
    threading.Thread(target=late).start()
"""
PATCHED = """\
import ctypes, tinygpu
kept = []
def elsewhere(size):
    kept.append(ctypes.create_string_buffer(size))
    return ctypes.addressof(kept[-1])
tinygpu.place = elsewhere
tinygpu.is_available = lambda: True
"""
MATMUL = """\
m = tinygpu.matmul
tinygpu.matmul = lambda a, b: tinygpu.Array([{} for n in m(a, b).numbers])"""
FLOOD = """\
import os, sys
for _ in range(100 if os.getpid() == 1 else 0):
    sys.{}.write("x" * 2**20 + "\\n")
"""
# What a host is whose GPU is gone, whatever image runs there; a line of the probe.
FALLEN = """
def fallen(*_):
    raise DriverError("the GPU has fallen off the bus")
Driver.read = fallen
"""
# Another line: a probe that takes whatever computes for a GPU.
LENIENT = "\nCHECKS['cuda_tensor'] = lambda expected: {'device': 'cuda'}\n"
UNREPORTED = "not reported: the probe ended with"


@dataclass(frozen=True)
class Sabotage:
    """What is done to the good image, the check that finds it, and what that says.

    `run` is a command while it is built, `site` a program that runs at each start of its Python;
    `also` are the other checks that cannot pass then.
    """

    check: str
    cause: str
    run: str = ""
    site: str = ""
    also: tuple[str, ...] = ()


def _edited(pattern: str, text: str) -> str:
    return f"sed -i 's/{pattern}/{text}/' {SITE}/tinygpu.py"


def _removed(library: str) -> str:
    return f"rm {SITE}/nvidia/{library}"


def _patched(line: str) -> str:
    return f"import tinygpu\n{line}\n"


SABOTAGES = {
    "cpu-only": Sabotage(
        "framework",
        "differs in cuda",
        run=_edited("^cuda = .*", "cuda = None"),
        site=_patched("tinygpu.is_available = lambda: False"),
        also=("cuda_tensor", "speed"),
    ),
    "other-cuda": Sabotage("framework", "differs in cuda", run=_edited("12.9", "11.8")),
    "other-version": Sabotage("framework", "differs in version", run=_edited("1.17", "1.16")),
    "cudnn-missing": Sabotage(
        "libraries",
        "libcudnn_graph.so.9: cannot open",
        run=_removed("cudnn/lib/libcudnn_graph.so.9"),
    ),
    "cublas-removed": Sabotage(
        "libraries", "libcublas.so.12: cannot open", run=_removed("cublas/lib/libcublas.so.12")
    ),
    "patched-availability": Sabotage("cuda_tensor", "not in a GPU's memory", site=PATCHED),
    "wrong-by-1-percent": Sabotage(
        "cuda_tensor", "matmul fp32: number 0 is", site=_patched(MATMUL.format("n * 1.01"))
    ),
    "nan": Sabotage(
        "cuda_tensor", "is nan, right is", site=_patched(MATMUL.format("n * float('nan')"))
    ),
    "hang": Sabotage(
        "cuda_tensor",
        "no answer within 3 s",
        site=_patched("tinygpu.exp = lambda x: [None for _ in iter(int, 1)]"),
    ),
    "hangs-at-its-start": Sabotage(
        "python", f"{UNREPORTED} the deadline", site="import time\ntime.sleep(600)\n"
    ),
    "forged-report": Sabotage("cuda_tensor", f"{UNREPORTED} exit status 0", site=FORGER + CRASH),
    "forged-by-guesses": Sabotage("cuda_tensor", "killed by signal 11", site=FORGER + GUESS),
    "forged-and-interrupted": Sabotage(
        "cuda_tensor", f"{UNREPORTED} exit status 130", site=FORGER + INTERRUPT
    ),
    "forged-by-a-survivor": Sabotage(
        "cuda_tensor", f"{UNREPORTED} exit status 0", site=FORGER + OUTLIVE
    ),
    "forged-at-exit": Sabotage("cuda_tensor", f"{UNREPORTED} exit status 0", site=FORGER + AT_EXIT),
    "prints-100-MB": Sabotage("output", "printed more than is kept", site=FLOOD.format("stdout")),
    "prints-100-MB-of-errors": Sabotage(
        "output", "printed more than is kept", site=FLOOD.format("stderr")
    ),
}
